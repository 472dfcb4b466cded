"""Checks that an output's name is free: Spout and Syphon accept a second sender of the same name without an error."""

from __future__ import annotations

from collections.abc import Collection

from engine.errors import NameTakenError


def check_free(name: str, taken: Collection[str], kind: str) -> None:
    """Raise if another sender has this name.

    Args:
        name: the wanted name.
        taken: the names of all senders on this machine.
        kind: what to call a sender in the message, such as "Spout sender".

    Raises:
        NameTakenError: if the name is in use; the remedy offers a free one.
    """
    if name in taken:
        free = next(other for number in range(2, len(taken) + 3) if (other := f"{name} {number}") not in taken)
        raise NameTakenError(
            f"Another {kind} on this machine is already called {name!r}.",
            f"Close that program or take another name, for instance {free!r}.",
        )
