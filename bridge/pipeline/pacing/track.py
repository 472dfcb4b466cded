"""A track: an adaptive jitter buffer, which holds frames for a delay that gives late ones time to arrive."""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice

from bridge.pipeline.pacing.latency import SECOND, WINDOW_NS, quantile
from bridge.pipeline.pacing.source import SourceClock
from engine.frame import Frame

BIN_NS = SECOND // 10
"""Of the frames in each interval of this length, the one with the longest delay counts."""

QUANTILE = 0.95
"""The delay is long enough for all frames in this share of the intervals."""

MARGIN_NS = 1_000_000
"""Added to the measured delay, so that a frame is ready before its tick."""

MAX_SHRINK = 0.08
"""Fastest that the delay may shrink, as a share of the time that passes."""

JUMP_RATIO, JUMP_NS = 1.25, SECOND // 8
"""A delay that is longer than this many times what has been needed lately, plus this, is not shrunk slowly: it is set
to what is needed, and the frames between are dropped. So a warm-up, a stall or slower settings leave no latency behind.
"""

JUMP_BINS = 2
"""Number of last intervals with frames that count as lately: two chunks of a slow engine."""

JUMP_PAUSE_NS = SECOND
"""If the delay has to grow again within `WINDOW_NS` after a jump, the next jump waits for this long, and twice as long
each time; where long delays come again and again, a steady delay is better."""

MAX_DELAY_NS = 5 * SECOND
"""Frames that take longer than this do not count towards the delay: that is a stall, not jitter."""


class Track:
    """Frames waiting to be sent, each with the time at which it is due.

    `offer` may be called from another thread than the other methods.

    Attributes:
        late: frames dropped because a newer one was due as well.
        delay_ns: from a frame's local time (see `pacer`) to the time at which it is due.
    """

    def __init__(self) -> None:
        self.late = 0
        self.delay_ns = 0
        self._clock = SourceClock()
        self._queue: deque[tuple[int, Frame]] = deque()
        self._bins: deque[tuple[int, int]] = deque()  # (begin of the interval, longest delay needed in it)
        self._measured_at = 0
        self._jumped_at = 0
        self._jump_pause_ns = 0
        self._jump_failed = False  # the delay had to grow again
        self._shown_time: int | None = None  # local time of the frame shown last
        self._new = False
        self._lock = threading.Lock()

    def offer(self, frame: Frame, ready_ns: int) -> None:
        """Add a finished frame.

        Args:
            frame: with `pts_ns` and `captured_ns` of the input frame that it came from.
            ready_ns: when it was finished.
        """
        with self._lock:
            local_time = self._clock.local_time(frame)
            # If source times jumped back, the waiting frames of the old stream would be shown after this one.
            while self._queue and self._queue[-1][0] >= local_time:
                self._queue.pop()
                self.late += 1
            self._queue.append((local_time, frame))
            self._measure(ready_ns - local_time, ready_ns)

    def pick(self, tick_ns: int, early_ns: int = 0, slack_ns: int = 0) -> Frame | None:
        """The frame to show at this tick, or None if there is no new one.

        Args:
            tick_ns: planned time of the tick.
            early_ns: how long before it is due a frame may be shown.
            slack_ns: how late a frame may be before older ones are dropped for it.
        """
        with self._lock:
            horizon = tick_ns - self.delay_ns + early_ns
            queue, picked = self._queue, None
            while queue and queue[0][0] <= (horizon if picked is None else horizon - slack_ns):
                if picked is not None:
                    self.late += 1
                self._shown_time, picked = queue.popleft()
            self._new = picked is not None
            return picked

    def clear(self) -> None:
        """Drop the waiting frames (they count as late) and the measurements."""
        with self._lock:
            self.late += len(self._queue)
            self._queue.clear()
            self._bins.clear()
            self._clock = SourceClock()
            self._shown_time = None
            self._new = False
            self.delay_ns = 0

    @property
    def waiting(self) -> int:
        """Frames that are not due yet."""
        return len(self._queue)

    def phase_error(self, tick_ns: int, period_ns: int, every: bool) -> int:
        """How much later a tick is than the times at which frames are due, in ns; 0 if that is not known.

        At most half a period either way, except if `every` frame is to be shown: then how late the frame of this tick
        is, however many periods that may be.
        """
        with self._lock:
            if self._shown_time is None:
                return 0
            late = tick_ns - (self._shown_time + self.delay_ns)
            if every and self._new:
                return late
            return (late + period_ns // 2) % period_ns - period_ns // 2

    def _measure(self, needed: int, now_ns: int) -> None:
        bins = self._bins
        while bins and not 0 <= now_ns - bins[0][0] <= WINDOW_NS:
            bins.popleft()
        if needed <= MAX_DELAY_NS:
            if bins and now_ns - bins[-1][0] < BIN_NS:
                bins[-1] = (bins[-1][0], max(needed, bins[-1][1]))
            else:
                bins.append((now_ns, needed))
        if not bins:
            return
        self._jump(now_ns)
        wanted = quantile([longest for _, longest in bins], QUANTILE) + MARGIN_NS
        grown = wanted > self.delay_ns + JUMP_NS
        if grown and not self._jump_failed and self._jumped_at and now_ns - self._jumped_at < WINDOW_NS:
            self._jump_pause_ns = max(JUMP_PAUSE_NS, min(2 * self._jump_pause_ns, WINDOW_NS))
            self._jump_failed = True
        if wanted < self.delay_ns:
            passed = min(max(0, now_ns - self._measured_at), SECOND)
            wanted = max(wanted, self.delay_ns - int(passed * MAX_SHRINK))
        self.delay_ns = wanted
        self._measured_at = now_ns

    def _jump(self, now_ns: int) -> None:
        """Give up a delay that is far longer than what has been needed lately; see `JUMP_RATIO`."""
        bins = self._bins
        if len(bins) < JUMP_BINS:
            return
        needed = max(longest for _, longest in islice(reversed(bins), JUMP_BINS)) + MARGIN_NS
        if self.delay_ns <= JUMP_RATIO * needed + JUMP_NS:
            return
        long = max((at for at, longest in bins if longest > needed), default=0)
        if now_ns - long < self._jump_pause_ns:
            return
        if not self._jump_failed:
            self._jump_pause_ns = 0
        while len(bins) > JUMP_BINS:
            bins.popleft()
        self.delay_ns, self._jumped_at, self._jump_failed = needed, now_ns, False
