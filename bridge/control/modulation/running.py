"""`Running`: one modulator at work, with the little that it has to remember.

It is asked for its value at a moment of the picture: the time at which what is computed now will be seen. A cycle in
beats or in Hz is evaluated for that moment. What comes from outside (a signal that is followed, or that triggers) is
known only when it is heard, and acts from then on.

All times are arguments. What changes is replaced as a whole, so that threads may ask at the same time.
"""

from __future__ import annotations

import math

from bridge.control.modulation.modulator import FOLLOW, Modulator
from bridge.control.modulation.shapes import SHAPES, Follower, Slew, envelope
from bridge.control.signals import Signals
from bridge.control.tempo.state import Line, Tempo
from engine.control import Control

TRIGGER_LEVEL = 0.5
"""A signal above this triggers."""

TRIGGER_RISE = 0.2
"""One that is above it already, such as a hit that still falls, triggers again if it rises by so much at once."""

TRIGGER_PAUSE_NS = 80_000_000
"""Shortest time between two triggers; a signal that is put less often than this triggers each time that it is high."""

SHORTEST_S = 0.001
"""Shortest attack and release of an envelope, in s."""


class Running:
    """One modulator at work.

    Args:
        modulator: what it does.
        control: what it moves.
        signals: what is heard from outside.
        ns: the time now; a cycle in Hz begins with it.
        before: the one whose place it takes: it goes on where that is, if both move the same control.
    """

    def __init__(
        self, modulator: Modulator, control: Control, signals: Signals, ns: int, before: Running | None = None
    ) -> None:
        self.modulator = modulator
        self.control = control
        assert control.low is not None and control.high is not None
        self.low, self.high = control.low, control.high
        self._shape = SHAPES.get(modulator.shape)
        self._direction = modulator.direction
        self._signals = signals
        self._line = Line(float(ns), 0.0, modulator.hz * 60.0)  # its beats are cycles
        self._begin_beat: float | None = None  # of a cycle in beats, where it was retriggered
        self._slew = Slew(2e3 / modulator.slew if modulator.slew else math.inf)
        self._follower = Follower(modulator.attack / 1e3, modulator.release / 1e3)
        self._heard = (0.0, 0)  # the trigger's newest number and its time
        self._triggered_ns: int | None = None
        if before is not None and before.control is control:
            self._continue(before, ns)

    def _continue(self, before: Running, ns: int) -> None:
        old, new = before.modulator, self.modulator
        if old.hz and new.hz:
            self._line = Line(float(ns), before._line.beat_at(ns), new.hz * 60.0)
        if old.beats and new.beats:
            self._begin_beat = before._begin_beat
        if old.trigger == new.trigger:
            self._heard, self._triggered_ns = before._heard, before._triggered_ns
        if old.source == new.source:
            self._follower.take(before._follower)
        if old.slew and new.slew:
            self._slew.take(before._slew)

    def retrigger(self, ns: float, tempo: Tempo) -> None:
        """Begin a cycle at a moment of the picture."""
        self._line = Line(float(ns), 0.0, self._line.bpm)
        self._begin_beat = tempo.beat_at(ns)

    def addition(self, now_ns: int, lead_ns: float, tempo: Tempo) -> float:
        """What it adds to its control, at full depth.

        Args:
            now_ns: the time now.
            lead_ns: how long after that it is seen.
            tempo: the beat in force.
        """
        m = self.modulator
        value = self._slew.limited(self._value(now_ns, lead_ns, tempo), now_ns / 1e9)
        if self._direction == "both":
            moved = value / 2.0
        else:
            moved = (value + 1.0) / 2.0 if self._direction == "up" else -(value + 1.0) / 2.0
        return (m.offset + m.depth * moved) * (self.high - self.low)

    def _value(self, now_ns: int, lead_ns: float, tempo: Tempo) -> float:
        """-1 to 1."""
        m = self.modulator
        if m.shape == FOLLOW:
            return self._followed(now_ns)
        if m.trigger:
            return self._triggered(now_ns, tempo)
        position = self._position(now_ns + lead_ns, tempo) + m.phase
        if self._shape is not None:
            return self._shape(position, m.seed)
        period_s = 1.0 / m.hz if m.hz else m.beats * 60.0 / (tempo.line.bpm or tempo.shown_bpm)
        return self._envelope((position % 1.0) * period_s, period_s)

    def _triggered(self, now_ns: int, tempo: Tempo) -> float:
        """Of one whose cycle begins with a signal."""
        m = self.modulator
        self._listen(now_ns)
        if self._triggered_ns is None:
            return -1.0 if self._shape is None else self._shape(m.phase, m.seed)
        elapsed_s = (now_ns - self._triggered_ns) / 1e9
        if self._shape is None:
            return self._envelope(elapsed_s, math.inf)
        cycles = elapsed_s * m.hz if m.hz else elapsed_s * tempo.line.bpm / 60.0 / m.beats
        return self._shape(cycles + m.phase, m.seed)

    def _position(self, ns: float, tempo: Tempo) -> float:
        """The position in cycles at a moment of the picture. A cycle in beats begins with a bar."""
        if self.modulator.hz:
            return self._line.beat_at(ns)
        begin = tempo.origin if self._begin_beat is None else self._begin_beat
        return (tempo.beat_at(ns) - begin) / self.modulator.beats

    def _envelope(self, elapsed_s: float, period_s: float) -> float:
        m = self.modulator
        return envelope(elapsed_s, max(SHORTEST_S, m.attack / 1e3), max(SHORTEST_S, m.release / 1e3), period_s)

    def _followed(self, now_ns: int) -> float:
        m = self.modulator
        newest = self._signals.newest(m.source)
        share = 0.0 if newest is None else min(1.0, max(0.0, (newest[0] - m.low) / (m.high - m.low)))
        return self._follower.fed(share, now_ns / 1e9) * 2.0 - 1.0

    def _listen(self, now_ns: int) -> None:
        """Notice a trigger: a signal that has risen, or one that comes again after a pause."""
        newest = self._signals.newest(self.modulator.trigger)
        if newest is None or newest == self._heard:
            return
        (before, before_ns), self._heard = self._heard, newest
        value, at_ns = newest
        rises = before <= TRIGGER_LEVEL or value - before >= TRIGGER_RISE or at_ns - before_ns >= TRIGGER_PAUSE_NS
        free = self._triggered_ns is None or at_ns - self._triggered_ns >= TRIGGER_PAUSE_NS
        if value > TRIGGER_LEVEL and rises and free:
            self._triggered_ns = min(at_ns, now_ns)
