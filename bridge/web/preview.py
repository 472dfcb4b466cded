"""The bridge's side of the preview: frames that some page watches are copied into a frame ring, one ring per kind.

The rings are made at the start, for one number of pixels. A picture keeps the proportions of its frame, which change
with the size of the output, and is as large as its ring allows.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from bridge.web.messages import KINDS
from bridge.web.packed_picture import METADATA_BYTES, packed
from engine.frame import Frame

WALL_FPS = 60.0
"""Most pictures per second of the kind `wall`."""

COPIES = {"output": ("output", "wall"), "input": ("input",)}
"""The kinds that are made of each offered frame."""

if TYPE_CHECKING:
    from bridge.pipeline.fit import Fitter


class Preview:
    """The frame rings of the preview, one per kind of picture. `open` and `close` may be called repeatedly.

    Args:
        width, height: size of the output at the start, in pixels: the pictures of the kind `wall` have at most as many
            pixels.
        fps: most pictures per second of each kind but `wall`.
        widest: longest side of the pictures of each kind but `wall`, in pixels; they have at most as many as one of
            16:9 with this width.

    Attributes:
        size: that of the output at the start.
        watched: the kinds that some page watches; other kinds are not copied.
    """

    def __init__(self, width: int, height: int, fps: float, widest: int) -> None:
        self.size = width, height
        self.fps = fps
        self._widest = widest
        small = widest, max(1, round(widest * 9 / 16))  # the usual proportions need not be packed
        self._room = {kind: self.size if kind == "wall" else small for kind in KINDS}
        self.watched: frozenset[str] = frozenset()
        self._period_ns = {kind: int(1e9 / (WALL_FPS if kind == "wall" else fps)) for kind in KINDS}
        self._rings: dict[str, FrameRing] = {}
        self._writers: dict[str, RingWriter] = {}
        self._next_ns: dict[str, int] = {}
        self._fitters: dict[str, Fitter] = {}
        self._packed: dict[str, np.ndarray] = {}  # where a picture of another size than the ring's is packed

    def open(self) -> None:
        """Create the rings."""
        self._rings = {kind: _ring(*size) for kind, size in self._room.items()}
        self._writers = {kind: ring.writer() for kind, ring in self._rings.items()}
        self._next_ns = dict.fromkeys(KINDS, 0)

    def close(self) -> None:
        """Release the rings' memory."""
        self.watched = frozenset()
        for writer in self._writers.values():
            writer.close()
        for ring in self._rings.values():
            ring.close()
        self._writers, self._rings = {}, {}

    @contextlib.contextmanager
    def readers(self) -> Iterator[dict[str, RingReader]]:
        """A reader of every ring, to be handed to the web process; this process's copies are closed at the end."""
        with contextlib.ExitStack() as stack:
            yield {kind: stack.enter_context(ring.reader()) for kind, ring in self._rings.items()}

    def offer(self, which: str, frame: Frame) -> None:
        """Copy a frame into each kind that is made of it, if some page watches that kind and its last copy was long
        enough ago. Never waits.

        Args:
            which: "output" or "input"; each must be offered by one thread only.
            frame: any size; scaled down where the kind allows fewer pixels.
        """
        for kind in COPIES[which]:
            if kind in self.watched:
                self._copy(kind, which, frame)

    def _copy(self, kind: str, which: str, frame: Frame) -> None:
        now, period = time.monotonic_ns(), self._period_ns[kind]
        if now < self._next_ns[kind] - period // 10:  # frames that come at this very rate are all copied
            return
        self._next_ns[kind] = max(self._next_ns[kind] + period, now - period)
        if kind not in self._packed:
            width, height = self._room[kind]
            self._packed[kind] = np.zeros((height, width, 3), np.uint8)
        picture = packed(self._pixels(kind, frame), frame.seq, self._packed[kind])
        with contextlib.suppress(ValueError, KeyError):  # closed by another thread just now
            self._writers[kind].put(picture)

    def _pixels(self, kind: str, frame: Frame) -> np.ndarray:
        """The picture as RGB at the size that its kind allows."""
        width, height = self._shown_size(kind, frame.width, frame.height)
        if (frame.width, frame.height) == (width, height):
            return frame.rgb()
        fitter = self._fitters.get(kind)  # one for each, because input and output have threads of their own
        if fitter is None or (fitter.width, fitter.height) != (width, height):
            from bridge.pipeline.fit import Fitter  # imported here: the web process loads this module, but no scaler

            fitter = self._fitters[kind] = Fitter(width, height)
        return fitter.fit(frame, "stretch")  # by less than a pixel: the proportions are the frame's

    def _shown_size(self, kind: str, width: int, height: int) -> tuple[int, int]:
        """Width and height of the picture of a frame of this size: its proportions, and no larger."""
        area = math.prod(self._room[kind])
        shrink = min(1.0, math.sqrt(area / (width * height)))
        if kind != "wall":
            shrink = min(shrink, self._widest / max(width, height))
        across = min(area, max(1, math.floor(width * shrink + 1e-6)))
        return across, min(area // across, max(1, math.floor(height * shrink + 1e-6)))


def _ring(width: int, height: int) -> FrameRing:
    return FrameRing(width, height, depth=1, metadata_bytes=METADATA_BYTES)
