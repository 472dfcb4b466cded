"""The output's clock: steady ticks that follow a source's phase, as with genlock, and the sleep until a tick."""

from __future__ import annotations

import math
import time
from fractions import Fraction

from bridge.pipeline.pacing.latency import SECOND

MAX_PULL = 0.02
"""Most that one tick may be moved towards the source's phase, as a share of the period, or of the phase error if that
is larger."""

CREDIT_RATE = 0.0007
"""Share of extra ticks that the clock may gain in the long run, by running faster after pauses."""

MAX_CREDIT = 8
"""Most extra ticks that can be saved up for a future pause, in periods."""


class OutputClock:
    """Ticks at a steady rate that is adjusted slightly to follow a source's phase.

    Attributes:
        next_ns: time of the next tick.
        credit_ns: time by which the clock may still run ahead of the source.
        period_ns: time between two ticks, rounded.
    """

    def __init__(self, fps: Fraction) -> None:
        self.next_ns = 0
        self.credit_ns = MAX_CREDIT * float(SECOND / fps)
        self._ticks = 0  # since the last `source_advanced`
        self._remainder = Fraction(0)
        self.fps = fps

    @property
    def fps(self) -> Fraction:
        """Ticks per second; may be changed at any time."""
        return self._fps

    @fps.setter
    def fps(self, fps: Fraction) -> None:
        if fps <= 0:
            raise ValueError(f"a frame rate must be positive, got {fps}")
        self._fps = fps
        self._period = Fraction(SECOND) / fps
        self.period_ns = round(self._period)

    def source_advanced(self, periods: float | None) -> None:
        """Note that the source has made frames for this many periods of the clock since the last call; None if that
        is not known."""
        gained = 0.0 if periods is None else self._ticks - periods
        self.credit_ns += (CREDIT_RATE * self._ticks - gained) * self.period_ns
        self.credit_ns = max(-float(SECOND), min(self.credit_ns, MAX_CREDIT * self.period_ns))
        self._ticks = 0

    def advance(self, now_ns: int, phase_error_ns: int = 0) -> int:
        """Plan the next tick and return its time (`next_ns`), which is later than `now_ns`.

        Missed ticks are skipped, never caught up; the next tick is on the same grid. If the system's clock has jumped,
        a new grid starts.
        """
        self._ticks += 1
        most = MAX_PULL * max(self.period_ns, abs(phase_error_ns))
        pull = max(-most, min(most, phase_error_ns * 0.1, max(0.0, self.credit_ns)))
        exact = self._period + self._remainder
        step = math.floor(exact)
        self._remainder = exact - step
        following = self.next_ns + step - round(pull)
        if 0 <= now_ns - following < SECOND:
            following += ((now_ns - following) // self.period_ns + 1) * self.period_ns
        elif not now_ns < following <= now_ns + 3 * self.period_ns:
            following = now_ns + self.period_ns
        self.next_ns = following
        return following


def sleep_until(when_ns: int) -> None:
    """Sleep until `time.monotonic_ns()` reaches a time; returns at once if it has passed."""
    while (left := when_ns - time.monotonic_ns()) > 0:
        time.sleep(left / SECOND)
