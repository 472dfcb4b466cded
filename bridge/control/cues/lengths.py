"""Lengths of time in a cue list: "2.5 s", "8 beats", "4 bars", or GO."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass
from typing import Any

from engine.coercion import shown

GO = "GO"
"""A wait that ends when somebody says so."""


class Unit(enum.StrEnum):
    """What a length is counted in."""

    SECONDS = "s"
    BEATS = "beats"
    BARS = "bars"


MOST = {Unit.SECONDS: 3600.0, Unit.BEATS: 4096.0, Unit.BARS: 1024.0}
"""Longest length, by its unit."""

_WORDS = {
    "s": Unit.SECONDS,
    "second": Unit.SECONDS,
    "seconds": Unit.SECONDS,
    "beat": Unit.BEATS,
    "beats": Unit.BEATS,
    "bar": Unit.BARS,
    "bars": Unit.BARS,
}
_LENGTH = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*([a-z]*)\s*")


@dataclass(frozen=True, slots=True)
class Length:
    """A length of time.

    Attributes:
        amount: 0 to `MOST`.
        unit: what it is counted in.
    """

    amount: float
    unit: Unit

    def __str__(self) -> str:
        unit = str(self.unit)
        if self.amount == 1.0 and self.unit is not Unit.SECONDS:
            unit = unit.removesuffix("s")
        return f"{self.amount:.6g} {unit}"

    def in_units(self, quantum: int) -> float:
        """In seconds, or in beats with so many to a bar."""
        return self.amount * quantum if self.unit is Unit.BARS else self.amount


def length(value: Any) -> Length:
    """The length that a text, or a number of seconds, stands for.

    Raises:
        ValueError: if it is none, or too long.
    """
    if isinstance(value, Length):
        return value
    text = f"{value:f}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    match = _LENGTH.fullmatch(text.lower()) if isinstance(text, str) else None
    unit = _WORDS.get(match[2] or "s") if match else None
    if match is None or unit is None:
        raise ValueError(f'{shown(value)} is not a length; write "2.5 s", "8 beats" or "4 bars"')
    amount = float(match[1])
    if not math.isfinite(amount) or amount > MOST[unit]:
        raise ValueError(f"{shown(value)} is too long; {MOST[unit]:g} {unit} at most")
    return Length(amount, unit)


def wait_length(value: Any) -> Length | None:
    """The length of a wait; None for GO.

    Raises:
        ValueError: if it is neither.
    """
    if value is None or (isinstance(value, str) and value.strip().upper() == GO):
        return None
    try:
        return length(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {GO}") from None
