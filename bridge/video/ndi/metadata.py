"""Small strings that ride on NDI frames, as one XML element: `<tidecast seq="7" controls="{...}"/>`.

What other programs send along is handed on whole under the key `ndi`. Knows nothing of NDI's library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

ELEMENT = "tidecast"

MOST_BYTES = 65536
"""Metadata beyond this are not read: they come from the network."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_xml(strings: Mapping[str, str]) -> str:
    """One XML element with the strings as attributes. Characters that XML cannot hold become spaces.

    Raises:
        ValueError: a key is no XML name.
    """
    parts = [ELEMENT]
    for key, value in strings.items():
        if not _NAME.match(key):
            raise ValueError(f"metadata key {key!r} must be letters, digits, dots, dashes or underscores")
        # Quoting leaves no raw newline or tab: attribute values would come back with spaces instead.
        quoted = quoteattr(_ILLEGAL.sub(" ", str(value)), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
        parts.append(f"{key}={quoted}")
    return f"<{' '.join(parts)}/>"


def from_xml(text: str) -> dict[str, str]:
    """The strings of `to_xml`; `{"ndi": text}` for an element of another program; {} for nothing or too much."""
    if not text or len(text) > MOST_BYTES:
        return {}
    if text.startswith(f"<{ELEMENT} ") and "<!" not in text:
        try:
            return dict(ElementTree.fromstring(text).attrib)
        except ElementTree.ParseError:
            pass
    return {"ndi": text}
