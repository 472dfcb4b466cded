"""The controls, commands and readings of modulators. `bridge.control.modulation.service` obeys them.

A modulator is one control, a text (`Modulator`): so it is set, stored, told and shown like every other control, and
there are few addresses however many keys it has.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bridge.control.modulation.modulator import can_be_modulated, parse, resolved
from bridge.control.table import ControlTable
from engine.control import Command, Control, Kind, Reading, command, controls_of, live

SLOTS = 16
"""Number of modulators."""

GROUP = "Modulation"

STORED = "modulation"
"""Word with which a snapshot stores the modulators."""


def slot(number: int) -> str:
    """Name of the control that holds the text of a modulator."""
    return f"mod_{number}"


def _check(number: int, text: str) -> None:
    parse(text, number)


def _modulator(number: int) -> Any:
    return live(
        "",
        f"/mod/{number}",
        f"Modulator {number}: target, shape and keys, such as strength sine beats=4 depth=0.3; empty for none.",
        group=GROUP,
        label=f"Modulator {number}",
        stored=STORED,
        check=functools.partial(_check, number),  # which, unlike a closure, reaches the page's process
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModulationControls:
    """What moves controls by itself."""

    mod_depth: float = live(
        1.0,
        "/mod/depth",
        "How far all modulators move what they move: 0 leaves every fader where it is.",
        group=GROUP,
        label="All modulators",
        low=0.0,
        high=1.0,
        glides=True,
        stored=STORED,
    )
    mod_1: str = _modulator(1)
    mod_2: str = _modulator(2)
    mod_3: str = _modulator(3)
    mod_4: str = _modulator(4)
    mod_5: str = _modulator(5)
    mod_6: str = _modulator(6)
    mod_7: str = _modulator(7)
    mod_8: str = _modulator(8)
    mod_9: str = _modulator(9)
    mod_10: str = _modulator(10)
    mod_11: str = _modulator(11)
    mod_12: str = _modulator(12)
    mod_13: str = _modulator(13)
    mod_14: str = _modulator(14)
    mod_15: str = _modulator(15)
    mod_16: str = _modulator(16)

    def texts(self) -> tuple[str, ...]:
        """The texts of all modulators, in order."""
        return tuple(getattr(self, slot(number)) for number in range(1, SLOTS + 1))

    @command("/mod/clear", "Remove all modulators.", group=GROUP, label="Remove all")
    def mod_clear(self) -> dict[str, Any]:
        """No modulator is left."""
        return {slot(number): "" for number in range(1, SLOTS + 1)}


SET = Command(
    "mod_set",
    "/mod/set",
    (("number", "i", True), ("key", "s", True), ("value", "*", True)),
    GROUP,
    "Set a key",
    "Change one key of a modulator, such as depth or beats.",
)
RETRIGGER = Command(
    "mod_retrigger",
    "/mod/retrigger",
    (("number", "i", True),),
    GROUP,
    "Retrigger",
    "Begin the cycle of a modulator now; 0 does nothing, so that a button can be released.",
)
RETRIGGER_ALL = Command(
    "mod_retrigger_all", "/mod/retrigger/all", (), GROUP, "Retrigger all", "Begin the cycles of all modulators now."
)

COMMANDS = (SET, RETRIGGER, RETRIGGER_ALL)


def check_modulator(name: str, text: Any, table: ControlTable) -> None:
    """Check the value of a control before there is a store, if it holds a modulator.

    Raises:
        ControlError: if the target of the modulator does not exist, or cannot be modulated.
    """
    if name in _NUMBERS:
        resolved(text, _NUMBERS[name], table)


_NUMBERS = {slot(number): number for number in range(1, SLOTS + 1)}

HEARD = Reading(
    "mod_signals", "/mod/signals", Kind.TEXT, "", "The signals that modulators can follow, as they were heard.", 1.0
)


def reading_name(control: str) -> str:
    """Name of the reading that tells the modulated value of a control."""
    return f"modulated_{control}"


def readings_of(owners: Iterable[type[Any]]) -> tuple[Reading, ...]:
    """The readings of modulated values, one for every control that can be modulated, and `HEARD`."""
    controls = [control for owner in owners for control in controls_of(owner) if can_be_modulated(control)]
    return (*map(_reading, controls), HEARD)


def _reading(control: Control) -> Reading:
    text = f"{control.label} as a modulator has it now; told while one moves it."
    return Reading(reading_name(control.name), f"/mod/value{control.address}", Kind.FLOAT, control.unit, text)
