"""Values as they come from outside, an OSC message, a file or a page, made into what a control can take. Pure."""

from __future__ import annotations

import math
from typing import Any

INTEGER_LIMIT = 10**20
"""Integers from here on are nobody's meaning; Python refuses to print the longest."""


def as_switch(value: Any) -> bool | None:
    """`value` as on or off: a word such as on, true or no, or a number, on from 0.5; None if it is neither."""
    word = value.strip().lower() if isinstance(value, str) else value
    if word in ("on", "true", "yes"):
        return True
    if word in ("off", "false", "no"):
        return False
    number = finite(value)
    return None if number is None else number >= 0.5


def finite(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    if isinstance(value, (bool, int, float, str)):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    return None


def has_utf8(text: str) -> bool:
    """Whether a text can be sent and stored: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    """`value` as an error message shows it: short, whatever came."""
    if isinstance(value, int) and abs(value) >= INTEGER_LIMIT:
        return "a huge number"
    text = repr(value)
    return f"{text[:60]}..." if len(text) > 60 else text
