"""What a stored snapshot holds: values by the names of their controls, and four entries that are no values.

`EXTRAS` and `NAME_KEY` are reserved words of Python, `COLOR_KEY` and `PICTURE_KEY` are no identifiers: no control has
such a name. What another version or a text editor has written is kept as it is; only what is valid here is used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bridge.control.snapshot_commands import COLORS, SAVE
from bridge.control.stored.thumbnail import Thumbnail, decoded
from bridge.control.table import ControlTable
from engine.control import ALWAYS, NEVER, PREFIX
from engine.errors import ControlError

EXTRAS = "with"
"""Key of the words that a snapshot was saved with."""

NAME_KEY = "as"
"""Key of its name."""

COLOR_KEY = "pad-color"
"""Key of its colour, one of `COLORS`."""

PICTURE_KEY = "pad-picture"
"""Key of its picture: a JPEG in base64, or a `Thumbnail` that is not written yet."""

LONGEST_NAME = 40


def name_of(stored: Mapping[str, Any]) -> str:
    """Its name; empty if it has none."""
    return str(stored.get(NAME_KEY) or "")


def color_of(stored: Mapping[str, Any]) -> str:
    """Its colour; empty if it has none that is known here."""
    color = stored.get(COLOR_KEY)
    return color if isinstance(color, str) and color in COLORS else ""


def picture_of(stored: Mapping[str, Any]) -> bytes | None:
    """Its picture as JPEG; None if it has none yet, or one that is damaged or too large."""
    picture = stored.get(PICTURE_KEY)
    return picture.jpeg if isinstance(picture, Thumbnail) else decoded(picture)


def changed(stored: Mapping[str, Any], key: str, text: str) -> dict[str, Any]:
    """A copy with this text under a key; without the key if the text is empty."""
    bare = {name: value for name, value in stored.items() if name != key}
    return {**bare, key: text} if text else bare


def plain(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that JSON can hold: a picture as text, or left out if there is none."""
    picture = stored.get(PICTURE_KEY)
    return changed(stored, PICTURE_KEY, picture.text) if isinstance(picture, Thumbnail) else dict(stored)


def stored_names(table: ControlTable, extras: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the controls that a snapshot includes which was saved with these words."""
    return tuple(c.name for c in table.controls if c.stored == ALWAYS or (c.stored != NEVER and c.stored in extras))


def words_of(table: ControlTable, extras: str) -> tuple[str, ...]:
    """The words in a text, with spaces or commas between them; each once.

    Raises:
        ControlError: if one is not a word under which controls are stored.
    """
    known = tuple(dict.fromkeys(c.stored for c in table.controls if c.stored not in (ALWAYS, NEVER)))
    words = tuple(dict.fromkeys(extras.lower().replace(",", " ").split()))
    for word in words:
        if word not in known:
            raise ControlError(
                PREFIX + SAVE.address,
                f"{word[:40]!r} cannot be stored besides the look; these can: {', '.join(known)}.",
            )
    return words
