"""How a recall is kept until the beat, by whoever knows the beat."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from bridge.control.origin import Origin

Apply = Callable[[Collection[str], bool], None]
"""Sets these controls of a command; the second argument says whether they are its first."""

Later = Callable[[str, Any, Collection[str], Origin, Apply], bool]
"""Keeps a command for later; see `bridge.control.tempo.changes.Changes.later`. Returns False if it is to be carried out
now."""


def at_once(what: str, value: Any, names: Collection[str], origin: Origin, apply: Apply) -> bool:
    """A `Later` that keeps nothing."""
    return False
