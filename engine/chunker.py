"""Groups frames into chunks of exactly the model's size. Drops no frame; does not import torch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.controls import Controls
from engine.frame import Frame


@dataclass(frozen=True, slots=True)
class Chunk:
    """The frames that the model processes together, and what was in force when they were taken.

    Attributes:
        frames: the frames; later the restyled ones.
        controls: the live controls, with the chunk's number of denoising steps.
        prompt: the prompt, as text for the user; empty without one.
    """

    frames: tuple[Frame, ...]
    controls: Controls
    prompt: str = ""


def chunk_of(ticket: object) -> Chunk:
    """The chunk that a session passed to its stream as a ticket (see `engine.stream.state.Ticket`)."""
    assert isinstance(ticket, Chunk), "a session's tickets are its chunks"
    return ticket


class Chunker:
    """Collects frames until there are enough for a chunk.

    Args:
        first: number of frames in a stream's first chunk.
        then: number of frames in every later chunk.
    """

    def __init__(self, first: int, then: int) -> None:
        self._first, self._then = first, then
        self._size = first
        self._waiting: deque[Frame] = deque()

    @property
    def needed(self) -> int:
        """Number of frames that are missing for the next chunk; 0 when it is ready."""
        return max(self._size - len(self._waiting), 0)

    @property
    def waiting(self) -> tuple[Frame, ...]:
        """Frames that are not in a chunk yet."""
        return tuple(self._waiting)

    @property
    def newest(self) -> Frame:
        """The last frame of the next chunk; valid only if no frame is `needed`."""
        return self._waiting[self._size - 1]

    def feed(self, frame: Frame) -> None:
        """Add a frame."""
        self._waiting.append(frame)

    def cut(self, controls: Controls, prompt: str = "") -> Chunk:
        """Take the next chunk; it keeps these controls and this prompt.

        Raises:
            ValueError: if frames are still `needed`.
        """
        if self.needed:
            raise ValueError(f"{self.needed} frames are missing for a chunk")
        chunk = Chunk(tuple(self._waiting.popleft() for _ in range(self._size)), controls, prompt)
        self._size = self._then
        return chunk

    def restart(self, begun: bool = False) -> None:
        """Make the next chunk the first one of a stream (or, with `begun`, a later one); waiting frames are kept."""
        self._size = self._then if begun else self._first

    def clear(self) -> None:
        """Drop the waiting frames."""
        self._waiting.clear()
