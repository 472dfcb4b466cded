"""`Clock`: the beat in force, by the chosen source. Thread-safe; all times are arguments.

A source gives a position over time (`Line`). What people do to it is kept apart, so that they can do it to a source
that is not theirs: a factor (x2, /2), a shift (nudge, bend), and where a bar begins (resync). The beat goes on whatever
the source does.
"""

from __future__ import annotations

import threading

from bridge.control.tempo.controls import (
    BEAT,
    DOUBLE,
    FOLLOWED,
    HALVE,
    INTERNAL_SOURCE,
    LINK,
    MIDI,
    NUDGE,
    OSC,
    PHASE,
    ROUND,
    TAP,
    TAP_BEAT,
)
from bridge.control.tempo.loop import BeatLoop
from bridge.control.tempo.midi_clock import CLOCKS, MidiClock
from bridge.control.tempo.state import MAX_BPM, MIN_BPM, MINUTE_NS, START_BPM, Line, State, Tempo, in_range
from bridge.control.tempo.taps import Taps
from engine.control import PREFIX
from engine.errors import ControlError

LOST_NS = 2_000_000_000
"""A source that is silent for this long is said to be lost, or two of its periods if these are longer."""

FACTORS = (0.25, 4.0)
"""Least and largest of what x2 and /2 make of a source that is followed."""

MOST_NUDGE_MS = 1000.0

JUMP = 0.5
"""A position that is told by OSC and further than this from the beat, in beats, is a jump."""

CLOSE = 2.0
"""The next position up to this far on, in beats, comes of another tempo; further on, of a song that was moved."""

MOST_BEAT = 1e9
"""Largest position that is taken by OSC, in beats."""


class Clock:
    """The beat.

    Args:
        ns: the time now.
        bpm: the tempo at the start.

    Attributes:
        tempo: the beat in force; read without a lock.
    """

    def __init__(self, ns: int, bpm: float = START_BPM) -> None:
        self._lock = threading.RLock()
        self._source = INTERNAL_SOURCE
        self._line = Line(float(ns), 0.0, bpm)  # the source's position
        self._bpm = bpm  # of the source, also while it stands still
        self._shown = bpm
        self._factor, self._offset, self._shift, self._bend = 1.0, 0.0, 0.0, 0.0
        self._bent_ns = float(ns)
        self._origin, self._quantum = 0.0, 4
        self._heard_ns: float | None = None
        self._period_ns = 0.0  # longest time between two messages of the source
        self._state = State.RUNNING
        self._peers, self._had_peers, self._jumps = 0, False, 0
        self._taps = Taps()
        self._midi, self._osc = MidiClock(), BeatLoop()
        self.tempo = Tempo(line=self._line, shown_bpm=bpm)

    # What people do

    def choose(self, source: str, ns: int) -> None:
        """Follow another source. The beat goes on as it was until something is heard of it."""
        with self._lock:
            if source == self._source:
                return
            self._collapse(ns)
            self._source = source
            self._heard_ns, self._peers, self._had_peers = None, 0, False
            self._state = State.WAITING if source in FOLLOWED else State.RUNNING
            self._taps = Taps()
            self._midi, self._osc = MidiClock(), BeatLoop(self._bpm)
            self._publish(ns)

    def set_bpm(self, bpm: float, ns: int) -> None:
        """Set the tempo, for the sources that are not followed; for OSC until it tells another one."""
        with self._lock:
            self._collapse_own(ns)
            self._line = Line(float(ns), self._source_beat(ns), bpm / self._factor)
            self._bpm, self._shown = self._line.bpm, self._line.bpm
            if self._source == OSC:
                self._osc.restart(ns, self._line.beat, self._line.bpm)
            self._publish(ns)

    def tap(self, ns: int) -> float | None:
        """Take a tap. Returns the tempo that it tells; None if it tells none.

        The beat is moved so that it falls on the tap. A source that is followed and silent is left for the taps; the
        tempo of a session of Ableton Link is left to the caller.

        Raises:
            ControlError: if the beat comes from MIDI clock or OSC.
        """
        with self._lock:
            if self._source in (MIDI, OSC) and self._state in (State.RUNNING, State.STOPPED):
                raise self._not_ours(TAP_BEAT.address)
            found = self._taps.add(ns)
            if found is None:
                return None
            if self._source == LINK:
                return found.bpm
            taps = self._taps
            self.choose(TAP, ns)
            self._taps = taps
            self._collapse(ns)
            between = 0.5 if found.between else 0.0
            beat = round(self._line.beat_at(ns) - between) + between
            self._line = Line(float(ns), beat, found.bpm or self._bpm)
            self._bpm = self._shown = self._line.bpm
            self._publish(ns)
            return found.bpm

    def resync(self, ns: int) -> None:
        """Let a bar begin now; with a source that is followed, at its nearest beat."""
        with self._lock:
            self._collapse_own(ns)
            beat = float(round(self._beat(ns)))
            if self._source not in FOLLOWED:
                self._line = Line(float(ns), beat, self._line.bpm)
            self._origin = beat
            self._jumps += 1
            self._publish(ns)

    def scale(self, ratio: float, ns: int) -> None:
        """Make more beats of the same time, or fewer; a bar still begins where one began.

        Raises:
            ControlError: if the tempo would leave its range, or a followed source would be scaled by more than 4.
        """
        with self._lock:
            address = DOUBLE.address if ratio > 1.0 else HALVE.address
            bpm, factor = self._bpm * self._factor * ratio, self._factor * ratio
            if not in_range(bpm):
                raise ControlError(PREFIX + address, f"{bpm:g} is no tempo ({MIN_BPM:g} to {MAX_BPM:g}).")
            if self._source in FOLLOWED and not FACTORS[0] <= factor <= FACTORS[1]:
                raise ControlError(PREFIX + address, "A source is followed at a quarter to four times its tempo.")
            self._rescale(ratio, ns)
            self._publish(ns)

    def rounded(self) -> float:
        """The tempo as a whole number, to be set.

        Raises:
            ControlError: if the beat comes from MIDI clock or OSC.
        """
        with self._lock:
            if self._source in (MIDI, OSC):
                raise self._not_ours(ROUND.address)
            return min(max(float(round(self._shown * self._factor)), MIN_BPM), MAX_BPM)

    def nudge(self, ms: float, ns: int) -> None:
        """Move the beat so many ms later, or earlier below 0.

        Raises:
            ControlError: if it is more than a second.
        """
        if not abs(ms) <= MOST_NUDGE_MS:
            raise ControlError(PREFIX + NUDGE.address, f"{ms:g} ms is too far ({MOST_NUDGE_MS:g} at most).")
        with self._lock:
            self._shift -= ms * 1e6 * self._bpm * self._factor / MINUTE_NS
            self._publish(ns)

    def bend(self, percent: float, ns: int) -> None:
        """Run faster or slower from now on."""
        with self._lock:
            self._publish(ns)  # with what was bent until now
            self._bend = percent
            self._publish(ns)

    def set_quantum(self, beats: int, ns: int) -> None:
        """Set the beats of a bar."""
        with self._lock:
            if beats != self._quantum:
                self._quantum = beats
                self._jumps += 1
                if self._source == LINK:
                    self._heard_ns = None  # the phase in a bar is shared for each quantum
                self._publish(ns)

    # What sources tell

    def midi(self, message: str, value: int, ns: int) -> None:
        """Take a message of MIDI clock, as `midi_clock.MESSAGES` names them; `value` is that of a song position."""
        with self._lock:
            if self._source != MIDI:
                return
            clock, jumped = self._midi, False
            if message == "clock":
                self._heard(ns, clock.loop.period_ns / CLOCKS)
                told = clock.clock(ns, self._source_beat, self._bpm)
                if told is None:
                    return
                jumped = told
                self._bpm, self._shown = clock.loop.bpm, clock.loop.shown_bpm
            elif message == "start":
                clock.start()
                return
            elif message == "continue":
                clock.proceed()
                return
            elif message == "stop":
                clock.stop(self._source_beat(ns))
            elif not clock.songpos(value):
                return
            else:
                jumped = True
            if jumped:  # the source's positions are ours: its bar 1 is bar 1
                self._offset, self._origin = 0.0, 0.0
                self._jumps += 1
            self._follow(clock.line, ns)
            self._state = State.RUNNING if clock.playing else State.STOPPED
            self._publish(ns)

    def midi_from_another_port(self) -> None:
        """The next clock comes from another port."""
        with self._lock:
            self._midi.relock()

    def osc_beat(self, beat: float, ns: int) -> bool:
        """Take a position by OSC; returns whether OSC is followed.

        Raises:
            ControlError: if it is no position.
        """
        if not abs(beat) <= MOST_BEAT:
            raise ControlError(PREFIX + BEAT.address, f"{beat:g} is no position in beats.")
        with self._lock:
            if self._source != OSC:
                return False
            self._osc_position(beat, ns)
            return True

    def osc_phase(self, phase: float, ns: int) -> bool:
        """Take a place between two beats by OSC, 0 to 1; returns whether OSC is followed.

        Raises:
            ControlError: if it is not 0 to 1.
        """
        if not 0.0 <= phase <= 1.0:
            raise ControlError(PREFIX + PHASE.address, f"{phase:g} is not a phase (0 to 1).")
        with self._lock:
            if self._source != OSC:
                return False
            self._osc_position(round(self._source_beat(ns) - phase) + phase, ns)
            return True

    def link(self, line: Line, peers: int, ns: int) -> None:
        """Take the state of the session of Ableton Link."""
        with self._lock:
            if self._source != LINK:
                return
            before, joined = self._line, self._heard_ns is None
            if joined:  # a bar begins at multiples of the quantum; the count goes on
                away = self.tempo.beat_at(ns) - self._shift - line.beat_at(ns) * self._factor
                self._offset, self._origin = self._quantum * float(round(away / self._quantum)), 0.0
                self._jumps += 1
            self._heard_ns = float(ns)
            self._had_peers = self._had_peers or peers > 0
            state = State.RUNNING if peers else State.LOST if self._had_peers else State.WAITING
            same = abs(before.beat_at(ns) - line.beat_at(ns)) < 1e-5 and before.bpm == line.bpm
            if same and (peers, state) == (self._peers, self._state) and not joined and not self._bend:
                return
            self._peers, self._state = peers, state
            self._bpm = self._shown = line.bpm
            self._follow(line, ns)
            self._publish(ns)

    def check(self, ns: int) -> State:
        """Notice that a source has fallen silent; to be called some times a second."""
        with self._lock:
            heard, running = self._heard_ns, self._state is State.RUNNING
            if self._source in (MIDI, OSC) and running and heard is not None:
                if ns - heard > max(LOST_NS, 2.0 * self._period_ns):
                    self._state = State.LOST
                    self._publish(ns)
            elif self._bend:
                self._publish(ns)
            return self._state

    # Within

    def _osc_position(self, beat: float, ns: int) -> None:
        silent = self._heard_ns is None or ns - self._heard_ns > LOST_NS
        close = 0.0 < beat - self._osc.line.beat <= CLOSE and not silent
        self._heard(ns, self._osc.period_ns)
        if abs(beat - self._source_beat(ns)) > JUMP and not (close and self._osc.acquiring):
            self._osc.restart(ns, beat, None if silent or close else self._osc.bpm)
            self._offset = self._origin = 0.0
            self._jumps += 1
        elif silent:
            self._osc.restart(ns, beat)
        else:
            self._osc.measure(ns, beat)
        self._state = State.RUNNING
        self._bpm, self._shown = self._osc.bpm, self._osc.shown_bpm
        self._follow(self._osc.line, ns)
        self._publish(ns)

    def _heard(self, ns: int, period_ns: float) -> None:
        self._heard_ns, self._period_ns = float(ns), period_ns

    def _beat(self, ns: float) -> float:
        """The position in force at a time, without a bend that is not added up yet."""
        return self._line.beat_at(ns) * self._factor + self._offset + self._shift

    def _source_beat(self, ns: float) -> float:
        """The source's position at a time, if it goes on as it was."""
        return self._line.beat_at(ns)

    def _follow(self, line: Line, ns: int) -> None:
        """Take the source's line; at tempos that are out of range, a multiple of it is followed."""
        self._line = line
        while line.bpm and self._bpm * self._factor > MAX_BPM * 1.001:
            self._rescale(0.5, ns)
        while line.bpm and self._bpm * self._factor < MIN_BPM * 0.999:
            self._rescale(2.0, ns)

    def _rescale(self, ratio: float, ns: int) -> None:
        self._add_bend(ns)
        self._factor *= ratio
        self._offset = (self._offset + self._shift - self._origin) * ratio + self._origin
        self._shift = 0.0
        self._jumps += 1
        self._collapse_own(ns)

    def _collapse_own(self, ns: int) -> None:
        if self._source not in FOLLOWED:
            self._collapse(ns)

    def _collapse(self, ns: int) -> None:
        """Make the position in force the source's own; a beat that stood still goes on."""
        self._add_bend(ns)
        bpm = self._bpm * self._factor
        self._line = Line(float(ns), self._beat(ns), bpm)
        self._bpm, self._shown = bpm, self._shown * self._factor
        self._factor, self._offset, self._shift = 1.0, 0.0, 0.0

    def _add_bend(self, ns: float) -> None:
        """Add up what the bend has moved since the last time."""
        since, self._bent_ns = self._bent_ns, ns
        if self._bend and ns > since:
            moved = self._line.beat_at(ns) - self._line.beat_at(since)
            self._shift += moved * self._factor * self._bend / 100.0

    def _publish(self, ns: int) -> None:
        self._add_bend(ns)
        line = Line(self._line.ns, self._beat(self._line.ns), self._line.bpm * self._factor)
        if self._bend:
            line = Line(float(ns), line.beat_at(ns), line.bpm * (1.0 + self._bend / 100.0))
        self.tempo = Tempo(
            line=line,
            shown_bpm=self._shown * self._factor,
            quantum=self._quantum,
            origin=self._origin,
            source=self._source,
            state=self._state,
            peers=self._peers,
            jumps=self._jumps,
        )

    def _not_ours(self, address: str) -> ControlError:
        name = {MIDI: "MIDI clock", OSC: "OSC"}.get(self._source, self._source)
        return ControlError(PREFIX + address, f"The tempo follows {name}.", f"Set {PREFIX}/tempo/source to tap first.")
