"""The bridge's side of the preview: frames that some page watches are copied into a frame ring, one ring per kind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from bridge.web.messages import KINDS
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
        width, height: size of the output in pixels. The small pictures have its proportions and at most `widest` on
            their longer side.
        widest: in pixels.
        fps: most pictures per second of each kind but `wall`.

    Attributes:
        sizes: size of each kind's pictures.
        watched: the kinds that some page watches; other kinds are not copied.
    """

    def __init__(self, width: int, height: int, fps: float, widest: int) -> None:
        shrink = min(1.0, widest / max(width, height))
        small = max(1, round(width * shrink)), max(1, round(height * shrink))
        self.sizes = {kind: (width, height) if kind == "wall" else small for kind in KINDS}
        self.fps = fps
        self.watched: frozenset[str] = frozenset()
        self._period_ns = {kind: int(1e9 / (WALL_FPS if kind == "wall" else fps)) for kind in KINDS}
        self._rings: dict[str, FrameRing] = {}
        self._writers: dict[str, RingWriter] = {}
        self._next_ns: dict[str, int] = {}
        self._fitters: dict[str, Fitter] = {}

    def open(self) -> None:
        """Create the rings."""
        self._rings = {kind: FrameRing(*size, depth=1, metadata_bytes=0) for kind, size in self.sizes.items()}
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
            frame: scaled to the preview's size if it has another one, with black bars where the proportions differ.
        """
        for kind in COPIES[which]:
            if kind in self.watched:
                self._copy(kind, which, frame)

    def _copy(self, kind: str, which: str, frame: Frame) -> None:
        now, period = time.monotonic_ns(), self._period_ns[kind]
        if now < self._next_ns[kind] - period // 10:  # frames that come at this very rate are all copied
            return
        self._next_ns[kind] = max(self._next_ns[kind] + period, now - period)
        picture = Frame(self._pixels(kind, frame), seq=frame.seq)
        with contextlib.suppress(ValueError, KeyError):  # closed by another thread just now
            self._writers[kind].put(picture)

    def _pixels(self, kind: str, frame: Frame) -> np.ndarray:
        """The picture as RGB at the size of its kind."""
        size = self.sizes[kind]
        if (frame.width, frame.height) == size:
            return frame.rgb()
        if kind not in self._fitters:  # one for each, because input and output have threads of their own
            from bridge.pipeline.fit import Fitter  # imported here: the web process loads this module, but no scaler

            self._fitters[kind] = Fitter(*size)
        return self._fitters[kind].fit(frame, "contain")
