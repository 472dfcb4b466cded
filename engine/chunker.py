"""Cuts the run of frames into chunks of exactly the model's size. Needs no torch, knows no clock and drops nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.controls import Controls
from engine.frame import Frame


@dataclass(frozen=True, slots=True)
class Chunk:
    """Exactly the frames that the model takes at once, and the controls in force when they were taken."""

    frames: tuple[Frame, ...]
    controls: Controls


class Chunker:
    """Holds frames until there are enough for a chunk.

    Args:
        first: frames of a stream's first chunk.
        then: frames of every later chunk.
    """

    def __init__(self, first: int, then: int) -> None:
        self._first, self._then = first, then
        self._size = first
        self._waiting: deque[Frame] = deque()

    @property
    def needed(self) -> int:
        """How many more frames make a chunk; 0 when it is ready."""
        return max(self._size - len(self._waiting), 0)

    @property
    def waiting(self) -> tuple[Frame, ...]:
        """Frames that were fed and are in no chunk yet."""
        return tuple(self._waiting)

    @property
    def newest(self) -> Frame:
        """The last frame of the next chunk; ask only when none are `needed`."""
        return self._waiting[self._size - 1]

    def feed(self, frame: Frame) -> None:
        """Take one more frame."""
        self._waiting.append(frame)

    def cut(self, controls: Controls) -> Chunk:
        """The next chunk; call it only when none are `needed`."""
        if self.needed:
            raise ValueError(f"{self.needed} frames are missing for a chunk")
        chunk = Chunk(tuple(self._waiting.popleft() for _ in range(self._size)), controls)
        self._size = self._then
        return chunk

    def restart(self, begun: bool = False) -> None:
        """Make the next chunk the first of a stream (or, `begun`, a later one); waiting frames stay."""
        self._size = self._then if begun else self._first

    def clear(self) -> None:
        """Forget the waiting frames."""
        self._waiting.clear()
