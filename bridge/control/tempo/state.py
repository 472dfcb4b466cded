"""`Tempo`: the beat as one immutable value, which gives the position at any time, also in the future.

All times are those of `time.monotonic_ns`. A position is a number of beats; its whole numbers are the beats.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

MINUTE_NS = 60_000_000_000
MIN_BPM, MAX_BPM = 20.0, 999.0
"""Range of the tempo in beats per minute."""

START_BPM = 120.0

_ON_BOUNDARY = 1e-6
"""A position this close to a boundary, in beats, counts as on it: 0.2 us at 300 beats per minute."""


class State(enum.StrEnum):
    """What the chosen source does."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Its transport stands still, and the beat with it."""
    WAITING = "waiting"
    """Nothing was heard of it yet; the beat goes on as before."""
    LOST = "lost"
    """It is silent; the beat goes on in the last tempo."""


@dataclass(frozen=True, slots=True)
class Line:
    """Beats over time, at a constant tempo.

    Attributes:
        ns: a time.
        beat: the position at that time.
        bpm: beats per minute; 0 if the beat stands still.
    """

    ns: float
    beat: float
    bpm: float

    def beat_at(self, ns: float) -> float:
        """The position at a time."""
        return self.beat + (ns - self.ns) * self.bpm / MINUTE_NS

    def ns_at(self, beat: float) -> float:
        """The time of a position.

        Raises:
            ValueError: if the beat stands still.
        """
        if self.bpm <= 0.0:
            raise ValueError("a beat that stands still has no time for a position")
        return self.ns + (beat - self.beat) * MINUTE_NS / self.bpm

    def moved_to(self, ns: float) -> Line:
        """The same line, given by its position at another time."""
        return Line(ns, self.beat_at(ns), self.bpm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tempo:
    """The beat in force.

    Attributes:
        line: position over time; it stands still while `state` is stopped.
        shown_bpm: the tempo for people: averaged over some beats where the source is not exact.
        quantum: beats of a bar.
        origin: a position at which a bar begins.
        source: the chosen source, one of `bridge.control.tempo.controls.SOURCES`.
        state: what that source does.
        peers: other programs in the session, for Ableton Link.
        jumps: how often the position has jumped. What waits for a position has to choose another one then.
    """

    line: Line
    shown_bpm: float = START_BPM
    quantum: int = 4
    origin: float = 0.0
    source: str = "internal"
    state: State = State.RUNNING
    peers: int = 0
    jumps: int = 0

    @property
    def moving(self) -> bool:
        """Whether the beat goes on."""
        return self.line.bpm > 0.0

    def beat_at(self, ns: float) -> float:
        """The position at a time, in beats since the source's start."""
        return self.line.beat_at(ns)

    def bar_at(self, ns: float) -> float:
        """The place in the bar at a time, 0 to 1."""
        place = ((self.beat_at(ns) - self.origin) / self.quantum) % 1.0
        return place if place < 1.0 else 0.0  # Python rounds what is just below 0 up to 1

    def ns_at(self, beat: float) -> float:
        """The time of a position.

        Raises:
            ValueError: if the beat stands still.
        """
        return self.line.ns_at(beat)

    def next_boundary(self, ns: float, beats: float) -> float:
        """The position of the first boundary at or after a time.

        Args:
            ns: the time.
            beats: distance of the boundaries; counted from the begin of a bar.
        """
        count = (self.beat_at(ns) - self.origin) / beats
        return self.origin + math.ceil(count - _ON_BOUNDARY / beats) * beats


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that waits, for people.

    Attributes:
        what: name of the control, or of the command.
        value: what it is set to, or the command's argument.
        beat: position at which it is to be seen.
    """

    what: str
    value: Any
    beat: float


def in_range(bpm: float) -> bool:
    """Whether this is a tempo that is followed; False for what is no number."""
    return MIN_BPM <= bpm <= MAX_BPM


def clamped(bpm: float) -> float:
    """The tempo, moved into its range."""
    return min(max(bpm, MIN_BPM), MAX_BPM)
