"""The input frames of the last moments, found by time: what stages that compare, mix or interpolate look back at."""

from __future__ import annotations

import bisect
import threading

from engine.frame import Frame

KEPT_BYTES = 256 << 20
KEPT_FRAMES = 300
"""Bounds of what is kept until the restyled frames of the same moments have been sent."""

WITHIN_NS = 50_000_000
"""How far a frame may be from the moment asked for and still stand for it: most of a period at 15 frames a second."""


class FrameHistory:
    """Input frames by the time at which they were captured. Thread-safe.

    A restyled frame carries `captured_ns` of the input frame that it came from, and a frame that was made between two
    carries a time between theirs, so both find their input here.

    Args:
        frame_bytes: size of one frame's pixels, from which the number of frames that are kept follows.

    Attributes:
        newest: the frame added last; None before the first.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._most = max(2, min(KEPT_FRAMES, KEPT_BYTES // frame_bytes))
        self._times: list[int] = []
        self._frames: list[Frame] = []
        self._lock = threading.Lock()
        self.newest: Frame | None = None

    def __len__(self) -> int:
        """How many frames are kept."""
        return len(self._frames)

    def add(self, frame: Frame) -> None:
        """Keep one more frame; the oldest goes when there are too many."""
        with self._lock:
            place = bisect.bisect_right(self._times, frame.captured_ns)
            self._times.insert(place, frame.captured_ns)
            self._frames.insert(place, frame)
            if len(self._frames) > self._most:
                del self._times[0], self._frames[0]
        self.newest = frame

    def at(self, captured_ns: int, within_ns: int = WITHIN_NS) -> Frame | None:
        """The frame captured nearest to this time; None if there is none within `within_ns` of it."""
        before, after = self.around(captured_ns)
        near = [frame for frame in (before, after) if frame is not None]
        found = min(near, key=lambda frame: abs(frame.captured_ns - captured_ns), default=None)
        return found if found is not None and abs(found.captured_ns - captured_ns) <= within_ns else None

    def around(self, captured_ns: int) -> tuple[Frame | None, Frame | None]:
        """The last frame captured at or before this time, and the first after it; None where there is none."""
        with self._lock:
            place = bisect.bisect_right(self._times, captured_ns)
            before = self._frames[place - 1] if place else None
            after = self._frames[place] if place < len(self._frames) else None
            return before, after

    def forget(self, before_ns: int | None = None) -> None:
        """Forget what nobody who asks for this time or a later one can need; everything by default.

        The last frame at or before the time stays, so that `around` still finds both neighbours.
        """
        with self._lock:
            gone = len(self._frames) if before_ns is None else bisect.bisect_right(self._times, before_ns) - 1
            if gone > 0:
                del self._times[:gone], self._frames[:gone]
