"""Preview pictures in the web process: from the rings, through JPEG, to the pages that watch.

One thread takes the newest frame of each ring and encodes it once, however many pages watch; a page gets the next
picture when it has drawn the ones before, so a slow page sees fewer pictures and never older ones. Nothing is
encoded that nobody is ready to draw. Must not know HTTP, controls or the stage.
"""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import wait

import numpy as np
from PIL import Image

from bridge.ipc.frame_ring import RingReader
from bridge.service import Service
from bridge.web.messages import KINDS

HEADER = struct.Struct(">BxxxI")
"""What precedes the JPEG in a preview message: index of the kind in `KINDS`, sequence number (low 32 bits)."""

QUALITY = 78
IN_FLIGHT = 2
"""Pictures that may be on their way to a page, per kind, before it has drawn one."""

ONE_TIMEOUT_S = 2.0
LOOK_S = 0.2
"""How often the encoding thread looks whether it shall end, when no picture comes."""

Watched = Callable[[frozenset[str]], None]
"""Told which kinds somebody watches, whenever that changes; must not wait."""


def jpeg(pixels: np.ndarray, widest: int, quality: int = QUALITY) -> bytes:
    """Encode an RGB picture, uint8 [H, W, 3], scaled down to `widest` pixels in its longer side."""
    image = Image.fromarray(pixels)
    if max(image.size) > widest:
        image.thumbnail((widest, widest), Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


class Viewer:
    """One page that watches pictures."""

    def __init__(self) -> None:
        self.kinds: frozenset[str] = frozenset()
        self._newest: dict[str, bytes] = {}
        self._in_flight = 0
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether this page may be sent another picture."""
        return self._in_flight < IN_FLIGHT * max(1, len(self.kinds))

    def offer(self, kind: str, packet: bytes) -> None:
        """The newest picture of a kind; an older one that was not sent yet is forgotten."""
        if kind in self.kinds:
            self._newest[kind] = packet
            self._changed.set()

    def drawn(self) -> None:
        """The page has drawn a picture."""
        self._in_flight = max(0, self._in_flight - 1)
        self._changed.set()

    async def next(self) -> bytes:
        """Wait until there is a picture and the page is ready for it."""
        while not (self._newest and self.ready):
            self._changed.clear()
            await self._changed.wait()
        kind = next(iter(self._newest))
        self._in_flight += 1
        return self._newest.pop(kind)


class Gallery:
    """The pictures of all kinds and everyone who watches them. Methods run on the event loop's thread.

    Args:
        rings: reading end for each kind.
        watched: told what is watched, so that the bridge process copies nothing else.
        widest: longest side of a preview, pixels.
    """

    kinds = KINDS

    def __init__(self, rings: Mapping[str, RingReader], watched: Watched, widest: int = 640) -> None:
        self._rings = dict(rings)
        self._watched = watched
        self._widest = widest
        self._viewers: set[Viewer] = set()
        self._waiting: dict[str, list[asyncio.Future[bytes]]] = {kind: [] for kind in KINDS}
        self._last_watched: frozenset[str] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._service = Service("preview", self._encode_all)
        self.encoded = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take pictures; call on the loop's thread."""
        self._loop = loop
        self._service.start()

    def stop(self) -> None:
        """Stop taking pictures."""
        self._service.stop()

    def join(self) -> Viewer:
        """A new page, which watches nothing yet."""
        viewer = Viewer()
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a page."""
        self._viewers.discard(viewer)
        self._tell()

    def watch(self, viewer: Viewer, kinds: Iterable[object]) -> None:
        """From now on this page watches these kinds; unknown ones are left out."""
        wanted = list(kinds)
        viewer.kinds = frozenset(kind for kind in KINDS if kind in wanted)
        self._tell()

    async def one(self, kind: str) -> bytes | None:
        """The next picture of a kind as JPEG; None when none comes within two seconds."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[kind].append(future)
        self._tell()
        try:
            return await asyncio.wait_for(future, ONE_TIMEOUT_S)
        except TimeoutError:
            return None
        finally:
            if future in self._waiting[kind]:
                self._waiting[kind].remove(future)
            self._tell()

    def _tell(self) -> None:
        watched = frozenset(kind for viewer in self._viewers for kind in viewer.kinds)
        watched |= {kind for kind, futures in self._waiting.items() if futures}
        if watched != self._last_watched:
            self._last_watched = watched
            self._watched(watched)

    def _wanted(self, kind: str) -> bool:
        """Whether somebody could draw a picture of this kind now. Called by the encoding thread."""
        return bool(self._waiting[kind]) or any(kind in v.kinds and v.ready for v in tuple(self._viewers))

    def _arrived(self, kind: str, number: int, picture: bytes) -> None:
        packet = HEADER.pack(KINDS.index(kind), number & 0xFFFFFFFF) + picture
        for viewer in self._viewers:
            viewer.offer(kind, packet)
        waiting, self._waiting[kind] = self._waiting[kind], []
        for future in waiting:
            if not future.done():
                future.set_result(picture)

    def _encode_all(self) -> None:
        """The encoding thread."""
        assert self._loop is not None
        bells = {ring.waitable: kind for kind, ring in self._rings.items()}
        try:
            while not self._service.stopping.is_set():
                for bell in wait(list(bells), timeout=LOOK_S):
                    kind = bells[bell]  # type: ignore[index]
                    frame = self._rings[kind].get(0.0, newest=True)
                    if frame is not None and self._wanted(kind):
                        picture = jpeg(frame.pixels, self._widest)
                        self.encoded += 1
                        self._loop.call_soon_threadsafe(self._arrived, kind, frame.seq, picture)
        except (EOFError, OSError):
            return  # the bridge process is gone: this process is about to end
