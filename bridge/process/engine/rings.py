"""The two frame rings between the bridge and the engine process, which are exchanged when the model's size changes."""

from __future__ import annotations

import contextlib
import threading

from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from engine.frame import Frame

INBOX_DEPTH = 12
OUTBOX_DEPTH = 12
"""Frames that each ring holds: three chunks of four."""


class RingPair:
    """Both rings for pictures of one size, with this process's ends of them.

    Attributes:
        inbox, outbox: the rings that an engine process reads and writes.
        writer, reader: this process's ends.
        unread: drops what waits for an engine that has ended.

    Raises:
        SharedMemoryError: if there is not enough memory.
        OSError: if this process has too many open files.
    """

    def __init__(self, width: int, height: int) -> None:
        with contextlib.ExitStack() as opened:
            self.inbox = opened.enter_context(FrameRing(width, height, INBOX_DEPTH))
            self.outbox = opened.enter_context(FrameRing(width, height, OUTBOX_DEPTH))
            self.writer: RingWriter = opened.enter_context(self.inbox.writer())
            self.reader: RingReader = opened.enter_context(self.outbox.reader())
            self.unread: RingReader = opened.enter_context(self.inbox.reader())
            for end in (self.writer, self.reader, self.unread):
                end.pending  # noqa: B018 (maps the memory now: later there may be no descriptor left)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Release the memory; idempotent. An engine process that is left behind keeps its own hold of it."""
        self._opened.close()


class EngineRings:
    """The rings in use. One thread puts frames, one takes them, and another may exchange the rings meanwhile.

    Args:
        width, height: size of the frames in pixels.

    Attributes:
        pair: the rings.
        queued_ns: when the frame that was taken last was queued, by `time.monotonic_ns`.

    Raises:
        SharedMemoryError, OSError: as `RingPair`.
    """

    def __init__(self, width: int, height: int) -> None:
        self.pair = RingPair(width, height)
        self.queued_ns = 0
        self._putting, self._taking = threading.Lock(), threading.Lock()
        self._dropped = 0  # in rings that are gone, or of another size

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels."""
        return self.pair.inbox.size

    @property
    def dropped(self) -> int:
        """Frames for the engine that were dropped because there were newer ones, or that had another size."""
        with self._putting:
            return self._dropped + self.pair.writer.dropped

    def exchange(self, width: int, height: int) -> None:
        """Use new rings for frames of this size; what waits in the old ones is dropped.

        Raises:
            SharedMemoryError, OSError: as `RingPair`; the old rings are kept.
        """
        made = RingPair(width, height)
        with self._putting, self._taking:
            old, self.pair = self.pair, made
            self._dropped += old.writer.dropped
        old.close()

    def put(self, frame: Frame) -> bool:
        """Queue a frame for the engine; drops the oldest when the ring is full. Returns whether it was queued."""
        with self._putting:
            if (frame.width, frame.height) != self.size:  # made before the size changed
                self._dropped += 1
                return False
            return self.pair.writer.put(frame)

    def get(self, timeout_s: float = 0.0) -> Frame | None:
        """The oldest restyled frame; None if none comes within the timeout."""
        with self._taking:
            reader = self.pair.reader
            frame = reader.get(timeout_s)
            self.queued_ns = reader.queued_ns
            return frame

    def skip(self) -> int:
        """Drop every restyled frame that waits; returns how many there were."""
        with self._taking:
            return self.pair.reader.skip()

    def skip_unread(self) -> int:
        """Drop every frame that waits for the engine; returns how many there were. For use while there is none."""
        return self.pair.unread.skip()

    def close(self) -> None:
        """Release the memory; idempotent."""
        self.pair.close()
