"""How far a cue list has come: what waits, what glides, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.control.cues.controls import State
from bridge.control.cues.lengths import Unit
from bridge.control.stored.glide import Motion
from bridge.control.stored.later import Apply


@dataclass(frozen=True, slots=True)
class Armed:
    """A cue that waits for its moment.

    Attributes:
        number: tells it from those that were armed before.
        at: its place in the list.
        by_hand: whether somebody asked for it; if not, its time has come.
        values: what it sets.
        apply: begins it.
    """

    number: int
    at: int
    by_hand: bool
    values: Mapping[str, Any]
    apply: Apply


@dataclass(frozen=True, slots=True)
class Begun:
    """When the present cue began, in seconds and beats that had passed (`Elapsed`)."""

    seconds: float
    beats: float


@dataclass(frozen=True, slots=True)
class Gliding:
    """A value on its way.

    Attributes:
        motion: in seconds or beats that have passed.
        unit: which of them.
        lead_ns: how long before it is to be seen it is sent.
    """

    motion: Motion
    unit: Unit
    lead_ns: float


@dataclass(frozen=True, slots=True)
class View:
    """What is told of the list. Numbers count from 1; 0 is none."""

    state: State
    number: int = 0
    name: str = ""
    next_number: int = 0
    next_name: str = ""
    remaining: float = 0.0
    unit: str = ""
    count: int = 0
