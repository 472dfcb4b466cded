"""MIDI clock: tempo and song position from the messages clock, start, continue, stop and song position.

There are 24 clocks a beat. The clock after a start is position 0; the clock after a continue is the position at which
it was stopped, or the one that a song position has told (in sixteenths, 6 clocks each). Many senders keep the clock
running while they are stopped: it then tells the tempo only. Positions are counted, so they are exact; their times come
from the loop. All times are arguments.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge.control.tempo.loop import BeatLoop
from bridge.control.tempo.state import MIN_BPM, MINUTE_NS, Line

CLOCKS = 24
"""Clocks of a beat."""

CLOCKS_OF_SIXTEENTH = 6

GAP_CLOCKS = 8.0
"""After a pause of this many clocks the loop begins anew; the count goes on."""

BACKLOG = 0.25
"""Clocks that come this much of a period after the last one, after a pause, were held up by this machine together."""

SLOWEST_NS = int(1.5 * MINUTE_NS / MIN_BPM / CLOCKS)
"""Longest time between two clocks that are no pause: such a one twice in a row is a slower tempo."""

LOST_CLOCKS = 1.5
"""When the count is this far from the beat after a pause, clocks were lost in it."""

MESSAGES = ("clock", "start", "continue", "stop", "songpos")
"""The messages, as mido names them."""


class MidiClock:
    """What one sender of MIDI clock tells.

    Attributes:
        loop: follows the clocks.
        playing: whether the sender's transport runs; so until it says that it stops.
    """

    def __init__(self) -> None:
        self.loop = BeatLoop()
        self.playing = True
        self._count = 0  # clocks so far
        self._offset = 0.0  # from `_count` to the position, in clocks
        self._position: int | None = None  # of the next clock; None if it is not known
        self._starting = False
        self._last_ns: int | None = None
        self._pausing = False

    @property
    def line(self) -> Line:
        """Position over time, in beats; it stands still while the transport is stopped."""
        if not self.playing:
            return Line(self.loop.line.ns, (self._position or 0) / CLOCKS, 0.0)
        line = self.loop.line
        return Line(line.ns, line.beat + self._offset / CLOCKS, line.bpm)

    def relock(self) -> None:
        """Begin anew with the next clock, which may come from another port; the beat goes on where it is."""
        self._last_ns, self._position, self._starting, self.playing = None, None, False, True

    def clock(self, ns: int, beat_at: Callable[[float], float], bpm: float) -> bool | None:
        """Take a clock.

        Args:
            ns: when it arrived.
            beat_at: where the beat would be at a time without it.
            bpm: the tempo until now.

        Returns:
            Whether the position has jumped; None while it is not known what the clock means.
        """
        last, self._last_ns = self._last_ns, ns
        self._count += 1
        raw = self._count / CLOCKS
        if last is None:
            self.loop.restart(ns, raw)
            self.loop.period_ns = MINUTE_NS / bpm  # until it is measured
        elif self._pausing or ns - last > GAP_CLOCKS * self.loop.period_ns / CLOCKS:
            if not self._resumed(ns, ns - last, raw, beat_at):
                return None
        else:
            self.loop.measure(ns, raw)
        jumped, self._starting = self._starting, False
        self.playing = self.playing or jumped
        if self.playing:
            if self._position is None:
                self._position = round(beat_at(ns) * CLOCKS)
            self._offset = float(self._position - self._count)
            self._position += 1
        return jumped

    def _resumed(self, ns: int, interval: int, raw: float, beat_at: Callable[[float], float]) -> bool:
        """Whether the clocks are regular again, with this one, after a pause."""
        period = self.loop.period_ns / CLOCKS
        silent = interval > GAP_CLOCKS * period
        slower = silent and self._pausing and interval < SLOWEST_NS
        if self._starting or slower:
            self.loop.restart(ns, raw, MINUTE_NS / (interval * CLOCKS) if slower else None)
            self._pausing = False
            return True
        self._pausing = True
        self.loop.restart(ns, raw, self.loop.bpm)
        if silent or interval < BACKLOG * period:
            if self.playing and self._position is not None:
                self._position += 1
            return False
        self._pausing = False
        if self.playing and self._position is not None:
            expected = beat_at(ns) * CLOCKS
            if abs(self._position - expected) > LOST_CLOCKS:
                self._position = round(expected)
        return True

    def start(self) -> None:
        """The next clock is position 0."""
        self._position, self._starting = 0, True

    def proceed(self) -> None:
        """The next clock is at the position that was told last, or at which it was stopped; unchanged if neither is
        known, because it was heard from the middle of a song on."""
        self._starting = self._position is not None

    def stop(self, beat: float) -> None:
        """The transport stands still, at the position that the next clock would have had; at `beat` if that is not
        known."""
        if self._position is None:
            self._position = round(beat * CLOCKS)
        self.playing = self._starting = False

    def songpos(self, sixteenths: int) -> bool:
        """A song position; returns whether the position has jumped, which waits for the next clock while it plays."""
        self._position = sixteenths * CLOCKS_OF_SIXTEENTH
        if self.playing:
            self._starting = True
        return not self.playing
