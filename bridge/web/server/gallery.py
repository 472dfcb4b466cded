"""Preview pictures in the web process: read from the frame rings, encoded as JPEG, sent to the pages that watch.

One thread takes the newest frame of each ring and encodes it once, however many pages watch. A page gets the next
picture when it has drawn the ones before, so a slow page sees fewer pictures but never older ones. No picture is
encoded unless some page is ready to draw it.
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
from bridge.web.packed_picture import unpacked

HEADER = struct.Struct(">BxxxI")
"""What precedes the JPEG in a preview message: index of the kind in `KINDS`, sequence number (low 32 bits)."""

QUALITY = 78
WALL_QUALITY = 92
WALL_WIDEST = 4096
"""JPEG quality, and longest side in pixels, of the kind `wall`."""

IN_FLIGHT = 2
"""Pictures per kind that may be sent to a page before it acknowledges one."""

ONE_TIMEOUT_S = 2.0
POLL_S = 0.2
"""How often the encoding thread checks whether it has to stop, when no picture comes."""

Watched = Callable[[frozenset[str]], None]
"""Called with the kinds that some page watches, whenever they change; must not block."""


def jpeg(pixels: np.ndarray, widest: int, quality: int = QUALITY) -> bytes:
    """Encode an RGB picture, uint8 [H, W, 3], scaled down so that its longer side is `widest` pixels at most."""
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
        """Queue the newest picture of a kind; it replaces an older one that was not sent yet."""
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
    """The pictures of all kinds and the pages that watch them. Methods run on the event loop's thread.

    Args:
        rings: a ring reader for each kind.
        watched: called with the kinds that are watched, so that the bridge process copies no others.
        widest: longest side of a picture of the other kinds than `wall`, pixels.
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

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to encode pictures; call on the loop's thread."""
        self._loop = loop
        self._service.start()

    def stop(self) -> None:
        """Stop encoding pictures."""
        self._service.stop()

    def join(self) -> Viewer:
        """A new page, which watches nothing yet."""
        viewer = Viewer()
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a page."""
        self._viewers.discard(viewer)
        self._update_watched()

    def watch(self, viewer: Viewer, kinds: Iterable[object]) -> None:
        """Set the kinds that this page watches; unknown ones are ignored."""
        wanted = list(kinds)
        viewer.kinds = frozenset(kind for kind in KINDS if kind in wanted)
        self._update_watched()

    async def one(self, kind: str) -> bytes | None:
        """The next picture of a kind as JPEG; None when none comes within two seconds."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[kind].append(future)
        self._update_watched()
        try:
            return await asyncio.wait_for(future, ONE_TIMEOUT_S)
        except TimeoutError:
            return None
        finally:
            if future in self._waiting[kind]:
                self._waiting[kind].remove(future)
            self._update_watched()

    def _update_watched(self) -> None:
        watched = frozenset(kind for viewer in self._viewers for kind in viewer.kinds)
        watched |= {kind for kind, futures in self._waiting.items() if futures}
        if watched != self._last_watched:
            self._last_watched = watched
            self._watched(watched)

    def _wanted(self, kind: str) -> bool:
        """Whether some page is ready for a picture of this kind. Called by the encoding thread."""
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
        kinds = {ring.waitable: kind for kind, ring in self._rings.items()}
        try:
            while not self._service.stopping.is_set():
                for waitable in wait(list(kinds), timeout=POLL_S):
                    kind = kinds[waitable]  # type: ignore[index]
                    frame = self._rings[kind].get(0.0, newest=True)
                    if frame is not None and self._wanted(kind):
                        pixels, wall = unpacked(frame), kind == "wall"
                        picture = jpeg(pixels, WALL_WIDEST, WALL_QUALITY) if wall else jpeg(pixels, self._widest)
                        self._loop.call_soon_threadsafe(self._arrived, kind, frame.seq, picture)
        except (EOFError, OSError):
            return  # the bridge process is gone, so this process is about to end
