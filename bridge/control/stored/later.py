"""How a recall or a cue is kept until the beat, by whoever knows the beat."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from bridge.control.origin import Origin

Apply = Callable[[Collection[str], bool, float], None]
"""Sets these controls of a command: (names, whether they are its first, the position in beats at which they are
seen)."""

Later = Callable[[str, Any, Collection[str], Origin, Apply], bool]
"""Keeps a command for later; see `bridge.control.tempo.changes.Changes.later`. Returns False if it is to be carried out
now."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command lands, if that is not the next moment of the control `snap`.

    Attributes:
        snap: a word of that control, in place of its value; None for its value.
        earliest: a position in beats: it lands there, or at the first moment of `snap` from there on.
    """

    snap: str | None = None
    earliest: float | None = None


AT_SNAP = Place()
"""At the next moment of the control `snap`."""


def at_once(what: str, value: Any, names: Collection[str], origin: Origin, apply: Apply) -> bool:
    """A `Later` that keeps nothing."""
    return False
