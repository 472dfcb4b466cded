"""Metadata of NDI frames: short strings as one XML element, `<tidecast seq="7" strength="0.6"/>`.

Metadata of other programs is passed on unchanged under the key `ndi`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

ELEMENT = "tidecast"

MAX_CHARACTERS = 65536
"""Longer metadata is ignored: it comes from the network."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_xml(strings: Mapping[str, str]) -> str:
    """One XML element with the strings as attributes. Characters that XML cannot hold become spaces.

    Raises:
        ValueError: a key is not an XML name.
    """
    parts = [ELEMENT]
    for key, value in strings.items():
        if not _NAME.match(key):
            raise ValueError(f"metadata key {key!r} must be letters, digits, dots, dashes or underscores")
        # Newlines and tabs are written as references; XML parsers turn raw ones in attributes into spaces.
        quoted = quoteattr(_ILLEGAL.sub(" ", str(value)), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
        parts.append(f"{key}={quoted}")
    return f"<{' '.join(parts)}/>"


def from_xml(text: str) -> dict[str, str]:
    """The strings given to `to_xml`; `{"ndi": text}` for another program's text; {} if it is empty or too long."""
    if not text or len(text) > MAX_CHARACTERS:
        return {}
    if text.startswith(f"<{ELEMENT} ") and "<!" not in text:
        try:
            return dict(ElementTree.fromstring(text).attrib)
        except ElementTree.ParseError:
            pass
    return {"ndi": text}
