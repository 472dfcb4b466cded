"""A frame's metadata as a ring holds it: JSON in ASCII, at most so many bytes; and how strings are made to fit.

Characters outside ASCII are written as escapes of 6 or 12 bytes. So every `str` can be encoded, with control characters
and unpaired surrogates too, and the number of characters does not say how many bytes a text needs.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping

_encode = json.JSONEncoder().encode  # kept, because this runs for every frame


def encoded(strings: Mapping[str, str]) -> bytes:
    """The strings as JSON; nothing if there are none."""
    return _encode(dict(strings)).encode() if strings else b""


def decoded(blob: bytes) -> dict[str, str]:
    """The strings that `encoded` encoded."""
    return json.loads(blob.decode()) if blob else {}


def cut(text: str, limit: int) -> str:
    """The longest beginning of a text that takes at most `limit` bytes when encoded, without its quotation marks."""

    def needed(length: int) -> int:
        return len(_encode(text[:length])) - 2

    if len(text) <= limit // 12 or needed(len(text)) <= limit:
        return text
    return text[: bisect.bisect_right(range(limit + 1), limit, key=needed) - 1]


def fitted(strings: Mapping[str, str], limit: int) -> dict[str, str]:
    """The strings that take at most `limit` bytes together when encoded.

    They are taken in order. One that does not fit is left out whole, because half of another program's text means
    nothing to its reader; those after it are still taken if they fit.
    """
    kept: dict[str, str] = {}
    for key, value in strings.items():
        if len(encoded({**kept, key: value})) <= limit:
            kept[key] = value
    return kept
