"""Checks that an output's name is free: Spout and Syphon accept a second sender of the same name without an error."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from engine.errors import NameTakenError


def check_free(name: str, taken: Callable[[str], bool], kind: str) -> None:
    """Raise if another sender has this name.

    Args:
        name: the wanted name.
        taken: whether a sender on this machine has a name.
        kind: what to call a sender in the message, such as "Spout sender".

    Raises:
        NameTakenError: if the name is in use; the remedy offers a free one.
    """
    if taken(name):
        free = next(other for number in itertools.count(2) if not taken(other := f"{name} {number}"))
        raise NameTakenError(
            f"Another {kind} on this machine is already called {name!r}.",
            f"Close that program or take another name, for instance {free!r}.",
        )
