"""The input frames of the last seconds, found by their times, for stages that compare, mix or interpolate."""

from __future__ import annotations

import bisect
import threading

from engine.frame import Frame

KEPT_BYTES = 256 << 20
KEPT_FRAMES = 300
"""Most frames that are kept, in bytes and in number; usually they are forgotten earlier (`FrameHistory.forget`)."""

TOLERANCE_NS = 50_000_000
"""How far a frame's time may be from the time asked for: most of a period at 15 frames a second."""


class FrameHistory:
    """Input frames by the time at which they were captured. Thread-safe.

    A restyled frame carries the `captured_ns` of its input frame, and an interpolated frame carries a time between
    those of its two neighbours, so that the input of both is found here.

    Args:
        frame_bytes: size of one frame's pixels; determines how many frames are kept.

    Attributes:
        newest: the frame added last; None before the first.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._capacity = max(2, min(KEPT_FRAMES, KEPT_BYTES // frame_bytes))
        self._times: list[int] = []
        self._frames: list[Frame] = []
        self._lock = threading.Lock()
        self.newest: Frame | None = None

    def __len__(self) -> int:
        """How many frames are kept."""
        return len(self._frames)

    def add(self, frame: Frame) -> None:
        """Keep one more frame; drop the oldest when there are too many."""
        with self._lock:
            place = bisect.bisect_right(self._times, frame.captured_ns)
            self._times.insert(place, frame.captured_ns)
            self._frames.insert(place, frame)
            if len(self._frames) > self._capacity:
                del self._times[0], self._frames[0]
        self.newest = frame

    def at(self, captured_ns: int, tolerance_ns: int = TOLERANCE_NS) -> Frame | None:
        """The frame captured nearest to this time; None if it is further away than `tolerance_ns`."""
        before, after = self.around(captured_ns)
        near = [frame for frame in (before, after) if frame is not None]
        found = min(near, key=lambda frame: abs(frame.captured_ns - captured_ns), default=None)
        return found if found is not None and abs(found.captured_ns - captured_ns) <= tolerance_ns else None

    def around(self, captured_ns: int) -> tuple[Frame | None, Frame | None]:
        """The last frame captured at or before this time, and the first after it; None where there is none."""
        with self._lock:
            place = bisect.bisect_right(self._times, captured_ns)
            before = self._frames[place - 1] if place else None
            after = self._frames[place] if place < len(self._frames) else None
            return before, after

    def forget(self, before_ns: int | None = None) -> None:
        """Drop the frames that are not needed to answer for this time or a later one; all frames by default.

        The last frame at or before the time is kept, so that `around` still finds both neighbours.
        """
        with self._lock:
            count = len(self._frames) if before_ns is None else bisect.bisect_right(self._times, before_ns) - 1
            if count > 0:
                del self._times[:count], self._frames[:count]
