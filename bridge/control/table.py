"""The table of all controls, commands and readings, and the OSC addresses of its rows.

Pure data, and the look-up of an address. `bridge.table` composes the program's table from the owners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.control.osc.address_pattern import AddressIndex, PatternError, is_pattern
from engine.control import PREFIX, Command, Control, Reading, commands_of, controls_of
from engine.errors import ControlError


@dataclass(frozen=True, slots=True)
class Target:
    """What one OSC address stands for: a control's value, its `/norm` or `/midi` twin, or a command."""

    control: Control | None = None
    command: Command | None = None
    twin: str = ""

    def change(self, address: str, args: Sequence[Any]) -> tuple[str, Any]:
        """Name and new value of the control that is sent these arguments.

        Raises:
            ControlError: if there is not exactly one argument, or it is no value for a twin.
        """
        control = self.control
        assert control is not None
        if len(args) != 1:
            raise ControlError(address, f"One value is needed, got {len(args)}.")
        if self.twin == "norm":
            return control.name, control.from_norm(args[0])
        if self.twin == "midi":
            return control.name, control.from_midi(args[0])
        return control.name, args[0]


@dataclass(frozen=True)
class ControlTable:
    """Every control, command and reading, in the order in which generated pages show them.

    Attributes:
        controls, commands, readings: the rows.
        owners: the classes whose fields are the controls. A store needs them; a process that only describes the table
            can leave them out (`dataclasses.replace(table, owners=())`), so that it does not import them.
        by_name: controls by name.
        commands_by_name, readings_by_name: commands and readings by name.
        targets: what each full OSC address stands for; without the readings, to which nothing can be sent.

    Raises:
        ValueError: if two rows have the same name or address; the message names them.
    """

    controls: tuple[Control, ...]
    commands: tuple[Command, ...] = ()
    readings: tuple[Reading, ...] = ()
    owners: tuple[type[Any], ...] = ()
    by_name: dict[str, Control] = field(init=False, repr=False, compare=False)
    commands_by_name: dict[str, Command] = field(init=False, repr=False, compare=False)
    readings_by_name: dict[str, Reading] = field(init=False, repr=False, compare=False)
    targets: dict[str, Target] = field(init=False, repr=False, compare=False)
    _index: AddressIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen
        for rows, what in ((self.controls, "controls"), (self.commands, "commands"), (self.readings, "readings")):
            _check_unique((row.name for row in rows), f"{what} named")
        put(self, "by_name", {row.name: row for row in self.controls})
        put(self, "commands_by_name", {row.name: row for row in self.commands})
        put(self, "readings_by_name", {row.name: row for row in self.readings})
        places = [(PREFIX + row.address, Target(control=row)) for row in self.controls]
        for control in self.controls:
            if control.numeric:
                for twin in ("norm", "midi"):
                    places.append((f"{PREFIX}{control.address}/{twin}", Target(control=control, twin=twin)))
        places += [(PREFIX + row.address, Target(command=row)) for row in self.commands]
        _check_unique([*(place for place, _ in places), *(PREFIX + row.address for row in self.readings)], "rows at")
        put(self, "targets", dict(places))
        put(self, "_index", AddressIndex(place for place, target in places if target.control is not None))

    def find(self, address: str) -> tuple[Target, ...]:
        """What an OSC address stands for: one control, twin or command; or the controls and twins that an OSC 1.0
        address pattern matches (see `bridge.control.osc.address_pattern`), at least one.

        Raises:
            ControlError: if there is nothing at the address, or a pattern is malformed or too long.
        """
        target = self.targets.get(address)
        if target is not None:
            return (target,)
        found: tuple[Target, ...] = ()
        if is_pattern(address):
            try:
                found = tuple(self.targets[match] for match in self._index.matching(address))
            except PatternError as error:
                raise ControlError(address[:200], error.message) from None
        if not found:
            hint = "" if address.startswith(PREFIX + "/") else f" Addresses begin with {PREFIX}/."
            raise ControlError(address[:200], f"There is nothing at this address.{hint}")
        return found


def compose(
    owners: Sequence[type[Any]],
    commands: Iterable[Command] = (),
    readings: Iterable[Reading] = (),
    groups: Sequence[str] = (),
) -> ControlTable:
    """One table of what these owners declare.

    Args:
        owners: classes with `live` fields and `command` methods.
        commands: commands that are not methods of an owner; they come after those of the owners.
        readings: everything that is reported.
        groups: the order of the controls' groups; other groups follow in the order of the owners.

    Raises:
        ValueError: if a name or an address is used twice.
        TypeError: if the field of an owner is not a control.
    """
    controls = [control for owner in owners for control in controls_of(owner)]
    order = list(dict.fromkeys([*groups, *(control.group for control in controls)]))
    return ControlTable(
        controls=tuple(sorted(controls, key=lambda control: order.index(control.group))),
        commands=(*(row for owner in owners for row in commands_of(owner)), *commands),
        readings=tuple(readings),
        owners=tuple(owners),
    )


def _check_unique(words: Iterable[str], what: str) -> None:
    repeated = [word for word, count in Counter(words).items() if count > 1]
    if repeated:
        raise ValueError(f"There are several {what} {', '.join(repeated)}.")
