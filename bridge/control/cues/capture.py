"""Makes cues of what is played by hand: snapshots, prompts, and values where they come to rest. Time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bridge.control.cues.cue_list import LONGEST_TEXT, Cue
from bridge.control.cues.lengths import Length, Unit
from engine.control import ALWAYS, Control

REST_S = 0.5
"""A value that has not moved for this long has come to rest."""

TOGETHER_S = 0.05
"""What happens within this time becomes one cue."""

SHORTEST_GLIDE_S = 0.1

LONGEST_WAIT = {Unit.SECONDS: 3600.0, Unit.BEATS: 4096.0}


@dataclass(frozen=True, slots=True)
class Moment:
    """A time.

    Attributes:
        s: in seconds.
        beats: the position of the beat then; None while it stands still.
    """

    s: float
    beats: float | None


@dataclass(slots=True)
class _Step:
    """Something that was played: values from one moment to another, or a snapshot."""

    begun: Moment
    rested_s: float
    values: dict[str, Any] = field(default_factory=dict)
    snapshot: int | None = None
    glide_s: float = 0.0


class Capture:
    """What was played since it was made. Belongs to one thread at a time.

    Args:
        name: of the first cue, which is the look at the start.
        look: the values in force, as a snapshot holds them.
        now: the time.
        most: most cues.
    """

    def __init__(self, name: str, look: Mapping[str, Any], now: Moment, most: int) -> None:
        self._name = name
        self._steps = [_Step(now, now.s, dict(look))]
        self._moving: dict[str, _Step] = {}
        self._most = most

    @property
    def full(self) -> bool:
        """Whether there are as many cues as there may be."""
        return len(self._steps) + len(self._moving) >= self._most

    def note(self, control: Control, value: Any, now: Moment) -> None:
        """A control was set by hand. What no snapshot holds unasked is left out."""
        if control.stored != ALWAYS or (isinstance(value, str) and len(value) > LONGEST_TEXT):
            return
        if control.glides:
            step = self._moving.setdefault(control.name, _Step(now, now.s))
            step.values[control.name], step.rested_s = value, now.s
            return
        last = self._steps[-1]
        if len(self._steps) == 1 or now.s - last.begun.s > TOGETHER_S or last.glide_s:
            last = _Step(now, now.s)
            self._steps.append(last)
        last.values[control.name] = value

    def recall(self, number: int, glide_s: float, now: Moment) -> None:
        """A snapshot was recalled."""
        for name in list(self._moving):  # it has set these, too
            self._rest(name)
        self._steps.append(_Step(now, now.s, snapshot=number, glide_s=glide_s))

    def settle(self, now_s: float) -> None:
        """Notice what has come to rest; to be called some times a second."""
        for name, step in list(self._moving.items()):
            if now_s - step.rested_s >= REST_S:
                self._rest(name)

    def cues(self) -> list[Cue]:
        """What was played, as cues: each waits until the next one, the last one for GO."""
        for name in list(self._moving):
            self._rest(name)
        steps: list[_Step] = self._steps[:1]
        for step in sorted(self._steps[1:], key=lambda step: step.begun.s):
            last = steps[-1]
            together = step.begun.s - last.begun.s <= TOGETHER_S and step.snapshot is None and last is not steps[0]
            if together and abs(step.glide_s - last.glide_s) <= TOGETHER_S:
                last.values |= step.values
            else:
                steps.append(step)
        waits = [*(_between(step.begun, after.begun) for step, after in pairwise(steps)), None]
        return [
            Cue(
                name=self._name if at == 0 else "",
                snapshot=step.snapshot,
                values=step.values,
                glide=Length(round(step.glide_s, 2), Unit.SECONDS) if step.glide_s else None,
                wait=wait,
            )
            for at, (step, wait) in enumerate(zip(steps, waits, strict=True))
        ]

    def _rest(self, name: str) -> None:
        step = self._moving.pop(name)
        moved_s = step.rested_s - step.begun.s
        step.glide_s = moved_s if moved_s >= SHORTEST_GLIDE_S else 0.0
        self._steps.append(step)


def _between(earlier: Moment, later: Moment) -> Length:
    """The time between two moments: in beats, or in seconds if the beat stood still at one of them or jumped back."""
    if earlier.beats is not None and later.beats is not None and later.beats >= earlier.beats:
        return _length(later.beats - earlier.beats, Unit.BEATS)
    return _length(later.s - earlier.s, Unit.SECONDS)


def _length(amount: float, unit: Unit) -> Length:
    return Length(min(round(amount, 2), LONGEST_WAIT[unit]), unit)
