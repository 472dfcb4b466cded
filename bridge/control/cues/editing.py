"""Changes of a cue list while it plays. Each returns the new list; nothing is changed in place.

Numbers count from 1, as people see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.control.cues.cue_list import MAX_CUES, Cue, CueError, CueList, edited, made
from bridge.control.cues.lengths import wait_length
from bridge.control.table import ControlTable

FOLLOW = "follow"
"""A wait that ends with the cue's glide."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A new list.

    Attributes:
        cues: the list.
        places: the place of each cue of the old list in it, from 0; None for one that is gone.
    """

    cues: CueList
    places: tuple[int | None, ...]


def target(args: tuple[Any, ...]) -> Any:
    """The name or number that a command was sent.

    Raises:
        CueError: if there is not exactly one.
    """
    if len(args) != 1:
        raise CueError(f"One name or number is needed; {len(args)} came.")
    return args[0]


def added(cues: CueList, look: Mapping[str, Any], name: str = "") -> Edit:
    """With a look as a new cue at the end."""
    rows = [*cues.cue, _cue(name, look)]
    return _arranged(cues, rows, [*range(len(rows))])


def appended(cues: CueList, more: Iterable[Cue]) -> Edit:
    """With more cues at the end, as far as there is room."""
    rows = [*cues.cue, *more][:MAX_CUES]
    return _arranged(cues, rows, [*range(len(rows))])


def removed(cues: CueList, number: int) -> Edit:
    """Without a cue. One to which another one loops stays."""
    cue, at = _found(cues, number)
    for other, row in enumerate(cues.cue, 1):
        if cue.name and row.loop == cue.name and row is not cue:
            raise CueError(f"Cue {other} loops to {cue.name}; it cannot be removed.", "Remove that one first.")
    return _arranged(cues, [*cues.cue], [place for place in range(len(cues.cue)) if place != at])


def moved(cues: CueList, number: int, place: int) -> Edit:
    """With a cue at another place; a place past the end is the end."""
    _, at = _found(cues, number)
    order = [other for other in range(len(cues.cue)) if other != at]
    order.insert(max(place - 1, 0), at)
    return _arranged(cues, [*cues.cue], order)


def named(cues: CueList, table: ControlTable, number: int, name: str) -> Edit:
    """With another name of a cue; loops to it follow, and end if it has none any more."""
    cue, at = _found(cues, number)
    rows = [*cues.cue]
    rows[at] = edited(cue, table, name=name)
    new = rows[at].name
    if cue.name:
        loop = {"loop": new} if new else {"loop": "", "times": 0}
        rows = [edited(row, table, **loop) if row.loop == cue.name else row for row in rows]
    return _arranged(cues, rows, [*range(len(rows))])


def waiting(cues: CueList, table: ControlTable, number: int, text: str) -> Edit:
    """With another wait of a cue."""
    if text.strip().lower() == FOLLOW:
        return _changed(cues, table, number, {"follow": True, "wait": None})
    try:
        return _changed(cues, table, number, {"follow": False, "wait": wait_length(text)})
    except ValueError as error:
        raise CueError(f"{error}, or {FOLLOW}.") from None


def gliding(cues: CueList, table: ControlTable, number: int, text: str) -> Edit:
    """With another glide of a cue; an empty text is none."""
    return _changed(cues, table, number, {"glide": text if text.strip() else None})


def looped(cues: CueList, on: int) -> Edit:
    """With or without a way from the last cue to the first."""
    return Edit(made(cues.cue, bool(on)), tuple(range(len(cues.cue))))


def replaced(cues: CueList, new: CueList) -> Edit:
    """Another list in its place."""
    return Edit(new, (None,) * len(cues.cue))


def free_name(cues: CueList, word: str) -> str:
    """A name that no cue has: the word and a number."""
    names = {cue.name for cue in cues.cue}
    return next(name for number in range(1, MAX_CUES + 2) if (name := f"{word} {number}") not in names)


def _cue(name: str, look: Mapping[str, Any]) -> Cue:
    try:
        return Cue(name=name, values=look)
    except ValueError as error:  # pydantic's is one, and only the name comes from outside
        raise CueError(f"{name[:60]!r} is not a name of a cue: up to 40 characters.") from error


def _changed(cues: CueList, table: ControlTable, number: int, changes: Mapping[str, Any]) -> Edit:
    cue, at = _found(cues, number)
    rows = [*cues.cue]
    rows[at] = edited(cue, table, **changes)
    return _arranged(cues, rows, [*range(len(rows))])


def _found(cues: CueList, number: int) -> tuple[Cue, int]:
    if not 1 <= number <= len(cues.cue):
        raise CueError(f"There is no cue {number}; the list has {len(cues.cue)}.")
    return cues.cue[number - 1], number - 1


def _arranged(cues: CueList, rows: list[Cue], order: list[int]) -> Edit:
    """The list of these cues in this order; those of the old list are the first of `rows`."""
    if len(order) > MAX_CUES:
        raise CueError(f"A list has {MAX_CUES} cues at most.", "Remove cues first.")
    places = {row: place for place, row in enumerate(order)}
    return Edit(made((rows[row] for row in order), cues.loop), tuple(places.get(at) for at in range(len(cues.cue))))
