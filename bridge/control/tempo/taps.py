"""Tempo by tapping: refined over up to 16 taps, with double, half and missed taps folded. All times are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.control.tempo.state import MAX_BPM, MINUTE_NS

KEPT = 16
"""Taps over which the tempo is refined."""

FORGET_NS = 2_000_000_000
"""After a pause of this length the next tap is a first one."""

STEPS = ((1.0, 0.2), (2.0, 0.3), (0.5, 0.075))
"""Beats that may lie between two taps, and by how much each may be missed, in beats: one, a missed and a double tap."""

BOUNCE_NS = int(MINUTE_NS / MAX_BPM)
"""A tap closer than this to the last one is the same tap: a button that bounces, or a flood."""


@dataclass(frozen=True, slots=True)
class Tap:
    """What a tap tells.

    Attributes:
        bpm: the tempo; None at a first tap.
        between: whether it lies halfway between two beats.
    """

    bpm: float | None
    between: bool


class Taps:
    """The taps since the last pause."""

    def __init__(self) -> None:
        self._taps: list[tuple[int, float]] = []  # time, beats since the first

    def add(self, ns: int) -> Tap | None:
        """Take a tap; None if it is the last one again."""
        if self._taps and ns - self._taps[-1][0] > FORGET_NS:
            self._taps = []
        if not self._taps:
            self._taps = [(ns, 0.0)]
            return Tap(None, False)
        last_ns, last_beat = self._taps[-1]
        if ns - last_ns < BOUNCE_NS:
            return None
        step = self._beats_until(ns)
        if step is None:  # another tempo: the last tap was its first
            self._taps, last_beat, step = [(last_ns, 0.0)], 0.0, 1.0
        self._taps = [*self._taps, (ns, last_beat + step)][-KEPT:]
        period_ns, _ = self._line()
        return Tap(MINUTE_NS / period_ns, (last_beat + step) % 1.0 != 0.0)

    def _beats_until(self, ns: int) -> float | None:
        """How many beats after the last tap this one is; None if it does not fit the tempo so far."""
        if len(self._taps) < 2:
            return 1.0
        period_ns, last_ns = self._line()
        beats = (ns - last_ns) / period_ns
        return next((step for step, most in STEPS if abs(beats - step) <= most), None)

    def _line(self) -> tuple[float, float]:
        """The straight line through all taps: time of a beat in ns, and where the last tap should have been. A single
        tap is wrong by 20 ms; two in a row would make an interval look like another tempo."""
        count = len(self._taps)
        first_ns = self._taps[0][0]
        mean_ns = sum(ns - first_ns for ns, _ in self._taps) / count
        mean_beat = sum(beat for _, beat in self._taps) / count
        covariance = sum((ns - first_ns - mean_ns) * (beat - mean_beat) for ns, beat in self._taps)
        period_ns = covariance / sum((beat - mean_beat) ** 2 for _, beat in self._taps)
        return period_ns, first_ns + mean_ns + (self._taps[-1][1] - mean_beat) * period_ns
