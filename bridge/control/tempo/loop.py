"""A delay-locked loop: the steady beat in messages that arrive with jitter.

The loop predicts when the next message arrives and moves its phase and its period by a share of the error (Fons
Adriaensen, "Using a DLL to filter time"). It takes any messages that tell a position: 24 a beat for MIDI clock, one a
beat, or sixty a second. All times are arguments.
"""

from __future__ import annotations

import math
from collections import deque

from bridge.control.tempo.state import MAX_BPM, MIN_BPM, MINUTE_NS, START_BPM, Line, clamped

FAST_HZ, SLOW_HZ = 2.0, 0.5
"""Bandwidth for the first beat, and from then on."""

FAST_MOST, SLOW_MOST = 0.3, 0.1
"""Largest angle (2 pi x bandwidth x time since the last message): with few messages the loop would swing or
diverge."""

FAST_BEATS = 1.0
ACQUIRE_BEATS = 0.25
"""The tempo is first measured over this many beats; a single interval may be wrong by a fifth."""

LEAST_ADVANCE = 1.0 / 96.0
"""Messages closer than this, in beats, are left out: a flood of them costs nothing and tells nothing."""

SAME_SIGN_BEATS, SAME_SIGN_LEAST = 0.5, 4
"""When the errors keep one sign for this many beats (12 MIDI clocks), and messages at least, the tempo has changed."""

BEYOND_SCATTER = 2.0
"""They must also be this many times larger than usual: among errors by chance, 12 in a row have one sign every 43 s."""

SHOWN_BEATS = 8.0
"""The tempo for people is the mean over this many beats, so that its last digit stands still."""


class BeatLoop:
    """Follows a position in time.

    Attributes:
        period_ns: time of a beat.
    """

    def __init__(self, bpm: float = START_BPM) -> None:
        self.period_ns = MINUTE_NS / bpm
        self._ns, self._beat = 0.0, 0.0
        self._advance = 0.0  # beats between the last two messages
        self._first: tuple[int, float] | None = None
        self._fast_until = 0.0
        self._sum, self._count = 0.0, 0  # of the errors that have one sign
        self._scatter = 0.0
        self._past: deque[tuple[float, float]] = deque(maxlen=1024)

    @property
    def line(self) -> Line:
        """Position over time, by all that was measured."""
        return Line(self._ns, self._beat, self.bpm)

    @property
    def bpm(self) -> float:
        """The tempo of the loop, by which the near future is predicted."""
        return MINUTE_NS / self.period_ns

    @property
    def acquiring(self) -> bool:
        """Whether the tempo is still being measured for the first time."""
        return self._first is not None

    @property
    def shown_bpm(self) -> float:
        """The tempo for people."""
        if self._past:
            beat, ns = self._past[0]
            if self._beat - beat >= SHOWN_BEATS / 2 and self._ns > ns:
                return clamped((self._beat - beat) * MINUTE_NS / (self._ns - ns))
        return self.bpm

    def restart(self, ns: int, beat: float, bpm: float | None = None) -> None:
        """Begin anew at this position.

        Args:
            ns: its time.
            beat: the position.
            bpm: the tempo if it is known about; else it is measured over the next messages.
        """
        self._ns, self._beat = float(ns), beat
        self._first = (ns, beat) if bpm is None else None
        if bpm is not None:
            self.period_ns = MINUTE_NS / clamped(bpm)
        self._go_fast()

    def measure(self, ns: int, beat: float) -> None:
        """Take a message that tells the position at its arrival; one that is no later than the last does nothing."""
        advance = beat - self._beat
        if advance < LEAST_ADVANCE:
            return
        self._advance = advance
        if self._first is not None:
            self._acquire(ns, beat)
            return
        step = advance * self.period_ns
        predicted = self._ns + step
        error = ns - predicted
        fast = beat < self._fast_until
        angle = 2.0 * math.pi * (FAST_HZ if fast else SLOW_HZ) * step / 1e9
        angle = min(angle, FAST_MOST if fast else SLOW_MOST)
        # A message that was held up is left to the next ones; a tempo that has changed is found by the signs below.
        taken = error if fast else min(max(error, -step / 2), step / 2)
        self._ns, self._beat = predicted + math.sqrt(2.0) * angle * taken, beat
        self._set_period(self.period_ns + angle * angle * taken / advance)
        self._watch(error, fast)
        if not fast:
            self._past.append((self._beat, self._ns))
            while self._beat - self._past[0][0] > SHOWN_BEATS:
                self._past.popleft()

    def _acquire(self, ns: int, beat: float) -> None:
        assert self._first is not None
        first_ns, first_beat = self._first
        self._ns, self._beat = float(ns), beat
        if beat - first_beat >= ACQUIRE_BEATS and ns > first_ns:
            self._set_period((ns - first_ns) / (beat - first_beat))
            self._first = None
            self._go_fast()

    def _set_period(self, period_ns: float) -> None:
        self.period_ns = min(max(period_ns, MINUTE_NS / MAX_BPM), MINUTE_NS / MIN_BPM)

    def _go_fast(self) -> None:
        self._fast_until = self._beat + max(FAST_BEATS, SAME_SIGN_LEAST * self._advance) + LEAST_ADVANCE
        self._sum, self._count = 0.0, 0
        self._past.clear()

    def _watch(self, error: float, fast: bool) -> None:
        """Go back to the fast loop when the errors show that the tempo has changed."""
        if self._count and (error > 0.0) != (self._sum > 0.0):
            mean = abs(self._sum) / self._count
            self._scatter += (mean - self._scatter) * min(1.0, self._count / 48.0)
            self._sum, self._count = 0.0, 0
        self._sum += error
        self._count += 1
        enough = self._count >= max(SAME_SIGN_LEAST, round(SAME_SIGN_BEATS / self._advance))
        if not fast and enough and abs(self._sum) / self._count > BEYOND_SCATTER * self._scatter:
            self._go_fast()
