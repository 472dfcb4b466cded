"""`Snapshot`: the values of all live controls at one time, immutable.

The snapshots that users store under numbers are in `bridge.control.snapshots`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Snapshot:
    """One frozen instance of every owner. Immutable; reading costs one or two dictionary look-ups.

    Args:
        owners: one instance of each owner; the names of all their fields must differ.

    Raises:
        ValueError: if two owners have a field of the same name.
    """

    __slots__ = ("_owner_of", "_owners")

    def __init__(self, owners: Iterable[Any]) -> None:
        self._owners: dict[type[Any], Any] = {type(owner): owner for owner in owners}
        self._owner_of: dict[str, type[Any]] = {}
        for owner in self._owners:
            for item in dataclasses.fields(owner):
                if item.name in self._owner_of:
                    other = self._owner_of[item.name].__name__
                    raise ValueError(f"{owner.__name__} and {other} both have a field {item.name!r}.")
                self._owner_of[item.name] = owner

    def of(self, owner: type[T]) -> T:
        """The instance of one owner; it stays the same object as long as none of its values changes.

        Raises:
            KeyError: if the table was composed without this owner.
        """
        return cast(T, self._owners[owner])

    def value(self, name: str) -> Any:
        """The value of one field by its name.

        Raises:
            KeyError: if no owner has such a field.
        """
        return getattr(self._owners[self._owner_of[name]], name)

    def replaced(self, values: Mapping[str, Any]) -> Snapshot:
        """A snapshot with these fields changed.

        Owners whose values stay equal remain the same objects; if nothing differs, the snapshot itself is returned.

        Raises:
            KeyError: if no owner has such a field.
        """
        owners = self._owners
        changes: dict[type[Any], dict[str, Any]] = {}
        for name, value in values.items():
            owner = self._owner_of[name]
            if getattr(owners[owner], name) != value:
                changes.setdefault(owner, {})[name] = value
        if not changes:
            return self
        new = Snapshot.__new__(Snapshot)
        new._owner_of = self._owner_of
        new._owners = owners | {o: dataclasses.replace(owners[o], **changed) for o, changed in changes.items()}
        return new

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self._owners == other._owners

    def __hash__(self) -> int:
        return hash(tuple(self._owners.values()))

    def __repr__(self) -> str:
        return f"Snapshot({', '.join(map(repr, self._owners.values()))})"
