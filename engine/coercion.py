"""Converts values from outside (OSC messages, files, the web page) to the types of controls."""

from __future__ import annotations

import math
from typing import Any

INTEGER_LIMIT = 10**20
"""Integers from this size on are not accepted as text or printed; Python refuses to print very long ones."""


def as_switch(value: Any) -> bool | None:
    """`value` as a bool: a word (on, true, yes, off, false, no) or a number (True from 0.5); None for others."""
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
    """Whether a text can be encoded as UTF-8, to send and store it; one with a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    """`value` as text for an error message, at most about 60 characters."""
    if isinstance(value, int) and abs(value) >= INTEGER_LIMIT:
        return "a huge number"
    text = repr(value)
    return f"{text[:60]}..." if len(text) > 60 else text
