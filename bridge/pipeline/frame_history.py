"""The input frames of the last seconds, found by their times, for stages that compare, mix or interpolate."""

from __future__ import annotations

import bisect
import threading

from bridge.pipeline.mask.timeline import MaskTimeline, Pictures
from engine.frame import Frame

KEPT_BYTES = 256 << 20
KEPT_FRAMES = 300
"""Most frames that are kept, in bytes and in number; usually they are forgotten earlier (`FrameHistory.forget`)."""

MATTE_BYTES = 64 << 20
"""Most bytes of mattes from a second input: those of one second at 1920x1080 and 30 per second."""

TOLERANCE_NS = 50_000_000
"""How far a frame's time may be from the time asked for: most of a period at 15 frames a second."""


class FrameHistory:
    """Input frames by the time at which they were captured. Thread-safe.

    A restyled frame carries the `captured_ns` of its input frame, and an interpolated frame carries a time between
    those of its two neighbours, so that the input of both is found here.

    Every frame is kept twice: at the size of the canvas, and reduced to the model's size, as the engine got it. The
    first are large: when they take more than `KEPT_BYTES`, the oldest of them are dropped, and the small ones stay.

    Attributes:
        newest: the frame added last; None before the first.
        newest_small: the same at the model's size.
        masks: the person masks of input frames; belongs to the publish thread.
        matte_input: the last mattes of the second input that gives them.
        background_input: the newest picture of the second input that is shown behind.
    """

    def __init__(self) -> None:
        self._frames, self._small = _Timeline(KEPT_BYTES), _Timeline(KEPT_BYTES // 2)
        self._lock = threading.Lock()
        self.masks = MaskTimeline()
        self.matte_input, self.background_input = Pictures(MATTE_BYTES), Pictures(0)
        self.newest: Frame | None = None
        self.newest_small: Frame | None = None

    def __len__(self) -> int:
        """How many frames are kept at the size of the canvas."""
        return len(self._frames.frames)

    def add(self, frame: Frame, small: Frame | None = None) -> None:
        """Keep one more frame; drop the oldest when there are too many.

        Args:
            frame: at the size of the canvas.
            small: the same at the model's size, if that is another size.
        """
        small = frame if small is None else small
        with self._lock:
            self._frames.add(frame)
            self._small.add(small)
        self.newest, self.newest_small = frame, small

    def at(self, captured_ns: int, tolerance_ns: int = TOLERANCE_NS) -> Frame | None:
        """The frame captured nearest to this time; None if it is further away than `tolerance_ns`."""
        return self._nearest(self._frames, captured_ns, tolerance_ns)

    def small_at(self, captured_ns: int, tolerance_ns: int = TOLERANCE_NS) -> Frame | None:
        """As `at`, at the model's size."""
        return self._nearest(self._small, captured_ns, tolerance_ns)

    def small_since(self, captured_ns: int) -> list[Frame]:
        """The frames captured after this time, at the model's size, oldest first."""
        with self._lock:
            return self._small.since(captured_ns)

    def around(self, captured_ns: int) -> tuple[Frame | None, Frame | None]:
        """The last frame captured at or before this time, and the first after it; None where there is none."""
        with self._lock:
            return self._frames.around(captured_ns)

    def forget(self, before_ns: int | None = None) -> None:
        """Drop the frames that are not needed to answer for this time or a later one; all frames by default.

        The last frame at or before the time is kept, so that `around` still finds both neighbours.
        """
        with self._lock:
            self._frames.forget(before_ns)
            self._small.forget(before_ns)

    def _nearest(self, timeline: _Timeline, captured_ns: int, tolerance_ns: int) -> Frame | None:
        with self._lock:
            near = [frame for frame in timeline.around(captured_ns) if frame is not None]
        found = min(near, key=lambda frame: abs(frame.captured_ns - captured_ns), default=None)
        return found if found is not None and abs(found.captured_ns - captured_ns) <= tolerance_ns else None


class _Timeline:
    """Frames in the order of their times, `most_bytes` of them at most."""

    def __init__(self, most_bytes: int) -> None:
        self.frames: list[Frame] = []
        self._times: list[int] = []
        self._bytes, self._most_bytes = 0, most_bytes

    def add(self, frame: Frame) -> None:
        place = bisect.bisect_right(self._times, frame.captured_ns)
        self._times.insert(place, frame.captured_ns)
        self.frames.insert(place, frame)
        self._bytes += _bytes_of(frame)
        count = len(self.frames)
        while count > KEPT_FRAMES or (count > 2 and self._bytes > self._most_bytes):
            self._drop(1)
            count -= 1

    def around(self, captured_ns: int) -> tuple[Frame | None, Frame | None]:
        place = bisect.bisect_right(self._times, captured_ns)
        before = self.frames[place - 1] if place else None
        after = self.frames[place] if place < len(self.frames) else None
        return before, after

    def since(self, captured_ns: int) -> list[Frame]:
        return self.frames[bisect.bisect_right(self._times, captured_ns) :]

    def forget(self, before_ns: int | None) -> None:
        self._drop(len(self.frames) if before_ns is None else bisect.bisect_right(self._times, before_ns) - 1)

    def _drop(self, count: int) -> None:
        if count > 0:
            self._bytes -= sum(_bytes_of(frame) for frame in self.frames[:count])
            del self._times[:count], self.frames[:count]


def _bytes_of(frame: Frame) -> int:
    return frame.pixels.nbytes + (frame.alpha.nbytes if frame.alpha is not None else 0)
