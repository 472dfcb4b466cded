"""A track: frames on their way to the output, held back by the delay that lets late ones still come in time."""

from __future__ import annotations

import threading
from collections import deque

from bridge.pipeline.pacing.latency import SECOND, WINDOW_NS, quantile
from bridge.pipeline.pacing.source import SourceClock
from engine.frame import Frame

SLOT_NS = SECOND // 10

QUANTILE = 0.95
"""The delay is long enough for every frame in this share of the tenths of a second."""

GUARD_NS = 1_000_000
"""Kept between a frame being ready and its tick, beside the measured delay."""

SHRINK = 0.08
"""Most that the delay may shrink, as a share of the time that passes."""

MAX_DELAY_NS = 5 * SECOND
"""Frames that take longer than this do not count towards the delay: that is a stall, not jitter."""


class Track:
    """Frames on their way to the output, each with the time at which it is due.

    `offer` may be called from another thread than the rest.

    Attributes:
        late: frames dropped because a newer one was due as well.
        delay_ns: from a frame's moment to its tick.
    """

    def __init__(self) -> None:
        self.late = 0
        self.delay_ns = 0
        self._clock = SourceClock()
        self._queue: deque[tuple[int, Frame]] = deque()
        self._needed: deque[tuple[int, int]] = deque()  # (begin of slot, longest delay needed in it)
        self._measured_at = 0
        self._moment: int | None = None
        self._new = False
        self._lock = threading.Lock()

    def offer(self, frame: Frame, ready_ns: int) -> None:
        """Hand over a finished frame.

        Args:
            frame: with `pts_ns` and `captured_ns` of the input frame that it came from.
            ready_ns: when it was finished.
        """
        with self._lock:
            moment = self._clock.moment(frame)
            # Source times fell back: a new beginning. What waits of the old stream would come after the new.
            while self._queue and self._queue[-1][0] >= moment:
                self._queue.pop()
                self.late += 1
            self._queue.append((moment, frame))
            self._measure(ready_ns - moment, ready_ns)

    def pick(self, tick_ns: int, early_ns: int = 0, slack_ns: int = 0) -> Frame | None:
        """The frame to show at this tick, or None if there is no new one.

        Args:
            tick_ns: planned time of the tick.
            early_ns: how much earlier than due a frame may be shown.
            slack_ns: how much overdue a frame may be before older ones are dropped for it.
        """
        with self._lock:
            horizon = tick_ns - self.delay_ns + early_ns
            queue, picked = self._queue, None
            while queue and queue[0][0] <= (horizon if picked is None else horizon - slack_ns):
                if picked is not None:
                    self.late += 1
                self._moment, picked = queue.popleft()
            self._new = picked is not None
            return picked

    def clear(self) -> None:
        """Forget frames that wait (they count as late) and what was measured."""
        with self._lock:
            self.late += len(self._queue)
            self._queue.clear()
            self._needed.clear()
            self._clock = SourceClock()
            self._moment = None
            self._new = False
            self.delay_ns = 0

    @property
    def waiting(self) -> int:
        """Frames that are not due yet."""
        return len(self._queue)

    def phase_error(self, tick_ns: int, period_ns: int, every: bool) -> int:
        """How much later than the frames' rhythm a tick is, in ns; 0 when not known.

        Within half a period, but where `every` frame is shown and was due long before this tick.
        """
        with self._lock:
            if self._moment is None:
                return 0
            late = tick_ns - (self._moment + self.delay_ns)
            if every and self._new:
                return late
            return (late + period_ns // 2) % period_ns - period_ns // 2

    def _measure(self, needed: int, now_ns: int) -> None:
        slots = self._needed
        while slots and not 0 <= now_ns - slots[0][0] <= WINDOW_NS:
            slots.popleft()
        if needed <= MAX_DELAY_NS:
            if slots and now_ns - slots[-1][0] < SLOT_NS:
                slots[-1] = (slots[-1][0], max(needed, slots[-1][1]))
            else:
                slots.append((now_ns, needed))
        if not slots:
            return
        wanted = quantile([longest for _, longest in slots], QUANTILE) + GUARD_NS
        if wanted < self.delay_ns:
            passed = min(max(0, now_ns - self._measured_at), SECOND)
            wanted = max(wanted, self.delay_ns - int(passed * SHRINK))
        self.delay_ns = wanted
        self._measured_at = now_ns
