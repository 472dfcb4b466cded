"""The values of all live controls at one moment: one immutable `Snapshot`.

Not to be confused with the snapshots that are stored under numbers (`bridge.control.snapshots`). Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Snapshot:
    """One frozen object of every owner. Immutable; reading costs one or two look-ups.

    Args:
        owners: one object of each owner; every field of an owner has a name that no other has.

    Raises:
        ValueError: if two owners have a field of the same name.
    """

    __slots__ = ("_home", "_owners")

    def __init__(self, owners: Iterable[Any]) -> None:
        self._owners: dict[type[Any], Any] = {type(owner): owner for owner in owners}
        self._home: dict[str, type[Any]] = {}
        for owner in self._owners:
            for item in dataclasses.fields(owner):
                if item.name in self._home:
                    other = self._home[item.name].__name__
                    raise ValueError(f"{owner.__name__} and {other} both have a field {item.name!r}.")
                self._home[item.name] = owner

    def of(self, owner: type[T]) -> T:
        """The values of one owner: the same object as before as long as none of them changed.

        Raises:
            KeyError: if the table was composed without this owner.
        """
        return cast(T, self._owners[owner])

    def value(self, name: str) -> Any:
        """The value of one field by its name.

        Raises:
            KeyError: if no owner has such a field.
        """
        return getattr(self._owners[self._home[name]], name)

    def replace(self, **values: Any) -> Snapshot:
        """A snapshot with these fields changed; owners none of whose values differ stay the same objects, and when
        nothing differs at all it is this very snapshot.

        Raises:
            KeyError: if no owner has such a field.
        """
        return self.replaced(values)

    def replaced(self, values: Mapping[str, Any]) -> Snapshot:
        """As `replace`, from a mapping."""
        home, owners = self._home, self._owners
        changes: dict[type[Any], dict[str, Any]] = {}
        for name, value in values.items():
            owner = home[name]
            if getattr(owners[owner], name) != value:
                changes.setdefault(owner, {})[name] = value
        if not changes:
            return self
        new = Snapshot.__new__(Snapshot)
        new._home = home
        new._owners = owners | {o: dataclasses.replace(owners[o], **changed) for o, changed in changes.items()}
        return new

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self._owners == other._owners

    def __hash__(self) -> int:
        return hash(tuple(self._owners.values()))

    def __repr__(self) -> str:
        return f"Snapshot({', '.join(map(repr, self._owners.values()))})"
