"""Controls, commands and readings, and how an owner declares them.

An owner is a frozen dataclass in the module that uses its values. Each field defined with `live` is a control. Each
method marked with `command` is a command that changes fields of the owner:

    @dataclass(frozen=True, slots=True, kw_only=True)
    class MixControls:
        mix: float = live(1.0, "/mix", "Dry to wet.", group="Stream", label="Mix", low=0.0, high=1.0)

        @command("/mix/half", "Half dry, half wet.", group="Stream", label="Half")
        def half(self) -> dict[str, Any]:
            return {"mix": 0.5}

A command that does something else is a `Command` in the module of the class that executes it. `bridge.table` combines
all owners in one table. Does not import torch.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.coercion import INTEGER_LIMIT, as_switch, finite, has_utf8, shown
from engine.errors import ControlError, TidecastError

PREFIX = "/tidecast"
"""Root of the OSC namespace; the addresses of controls, commands and readings are relative to it."""

ALWAYS, NEVER = "always", "never"
"""Whether stored snapshots include a control (`Control.stored`)."""

Arguments = tuple[tuple[str, str, bool], ...]
"""For each argument of a command: name, OSC type tag (`*` for any number of any type), whether it is required."""


class Kind(enum.StrEnum):
    """Type of a control's value."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    TEXT = "text"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Control:
    """One live control: a row of the table.

    Attributes:
        name: name of the owner's field.
        address: OSC address below `PREFIX`.
        kind: type of its value.
        default: initial value.
        low, high: inclusive range; None for text, choice and bool.
        unit: unit symbol; empty if there is none.
        choices: the permitted words of a choice.
        group: heading under which generated pages show it.
        label: short name for the user.
        help: one sentence for artists that says what it does.
        glides: whether it moves gradually when a snapshot is recalled.
        stored: whether stored snapshots include it: `ALWAYS`, `NEVER`, or a word; then only those that were saved with
            this word do.
        snaps: whether a change of it waits for the beat while the control `snap` is on.
        check: for text: raises a `TidecastError` for a value that could never be obeyed. For a choice: is asked about
            a word that is none of the choices, and raises one if it can say more than that. It is called on the threads
            that serve the controls, so it must not wait for a disk or a network.
    """

    name: str
    address: str
    kind: Kind
    default: Any
    low: float | None
    high: float | None
    unit: str
    choices: tuple[str, ...]
    group: str
    label: str
    help: str
    glides: bool
    stored: str = ALWAYS
    check: Callable[[str], None] | None = None
    snaps: bool = False

    def described(self) -> dict[str, Any]:
        """Its attributes as plain data, without `check`."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "check"}

    @property
    def numeric(self) -> bool:
        """Whether the control has a range, and so the additional addresses `/norm` and `/midi`."""
        return self.kind in (Kind.FLOAT, Kind.INT)

    def coerce(self, value: Any) -> Any:
        """Convert a client's value to a valid value of this control.

        For numeric controls, numbers, bools and numeric strings are accepted. Values out of range are clamped. For
        integers, the value is rounded, halves up.

        Raises:
            ControlError: if `value` cannot be understood; names the address and the reason.
        """
        if self.kind is Kind.TEXT:
            return self._checked(self._as_text(value))
        if self.kind is Kind.CHOICE:
            word = value.strip().lower() if isinstance(value, str) else None
            if word in self.choices:
                return word
            index = finite(value)
            if index is not None and index == int(index) and 0 <= index < len(self.choices):
                return self.choices[int(index)]
            if word is not None:
                self._checked(word)
            raise self._bad(value, "one of " + ", ".join(self.choices))
        if self.kind is Kind.BOOL:
            switch = as_switch(value)
            if switch is None:
                raise self._bad(value, "on or off")
            return switch
        number = finite(value)
        if number is None:
            raise self._bad(value, "a number")
        assert self.low is not None and self.high is not None
        number = min(max(number, self.low), self.high)
        return math.floor(number + 0.5) if self.kind is Kind.INT else number

    def to_norm(self, value: float) -> float:
        """Map a value to 0..1 over the range."""
        assert self.low is not None and self.high is not None
        return (float(value) - self.low) / (self.high - self.low)

    def from_norm(self, norm: Any) -> Any:
        """Map 0..1 (clamped) to a value over the range.

        Raises:
            ControlError: if `norm` is not a number.
        """
        number = finite(norm)
        if number is None:
            raise self._bad(norm, "a number from 0 to 1")
        assert self.low is not None and self.high is not None
        return self.coerce(self.low + min(max(number, 0.0), 1.0) * (self.high - self.low))

    def to_midi(self, value: float) -> int:
        """Map a value to 0..127 over the range."""
        return math.floor(self.to_norm(value) * 127.0 + 0.5)

    def from_midi(self, midi: Any) -> Any:
        """Map 0..127 (clamped; fractions are kept, for finer controllers) to a value over the range.

        Raises:
            ControlError: if `midi` is not a number.
        """
        number = finite(midi)
        if number is None:
            raise self._bad(midi, "a number from 0 to 127")
        return self.from_norm(number / 127.0)

    def _as_text(self, value: Any) -> str:
        if isinstance(value, bytes):
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError:
                raise self._bad(value, "text in UTF-8") from None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < INTEGER_LIMIT:
            return str(value)
        if isinstance(value, str) and has_utf8(value):
            return value
        raise self._bad(value, "text")

    def _checked(self, text: str) -> str:
        if self.check is not None:
            try:
                self.check(text)
            except TidecastError as error:
                raise ControlError(PREFIX + self.address, error.message, error.remedy) from None
        return text

    def _bad(self, value: Any, want: str) -> ControlError:
        return ControlError(PREFIX + self.address, f"{shown(value)} is not {want}.")


@dataclass(frozen=True, slots=True)
class Command:
    """An action that is executed once when its message arrives.

    Attributes:
        name: name under which handlers are registered, a Python identifier.
        address: OSC address below `PREFIX`.
        arguments: see `Arguments`.
        group, label, help: as in `Control`.
    """

    name: str
    address: str
    arguments: Arguments
    group: str
    label: str
    help: str

    def coerce(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Convert a client's values to valid arguments.

        Numbers may be numeric strings; for an integer they are rounded. A command without arguments ignores all
        values, since buttons send 1.

        Raises:
            ControlError: if there are too few or too many arguments, or one cannot be understood.
        """
        address = PREFIX + self.address
        if any(tag == "*" for _, tag, _ in self.arguments):
            return tuple(args)
        if not self.arguments:
            return ()
        need = sum(required for _, _, required in self.arguments)
        if not need <= len(args) <= len(self.arguments):
            names = ", ".join(name if required else f"[{name}]" for name, _, required in self.arguments)
            raise ControlError(address, f"The arguments are {names}; {len(args)} came.")
        return tuple(
            _argument(address, name, tag, value) for (name, tag, _), value in zip(self.arguments, args, strict=False)
        )


def _argument(address: str, name: str, tag: str, value: Any) -> Any:
    """Convert one argument of a command to its type tag, `s`, `i` or `f`."""
    if tag == "s":
        if not isinstance(value, str):
            raise ControlError(address, f"{name}: {shown(value)} is not text.")
        return value
    number = finite(value)
    if number is None:
        raise ControlError(address, f"{name}: {shown(value)} is not a number.")
    return math.floor(number + 0.5) if tag == "i" else number


@dataclass(frozen=True, slots=True)
class Reading:
    """One value that Tidecast reports to its subscribers.

    Attributes:
        name: key of the value in the telemetry.
        address: OSC address below `PREFIX`.
        kind: type of its value.
        unit, help: as in `Control`.
        hertz: how often it is sent per second; 0 if it is sent when it occurs.
    """

    name: str
    address: str
    kind: Kind
    unit: str
    help: str
    hertz: float = 10.0


def live(
    default: Any,
    address: str,
    help: str,
    *,
    group: str,
    label: str,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    choices: tuple[str, ...] = (),
    glides: bool = False,
    stored: str = ALWAYS,
    check: Callable[[str], None] | None = None,
    snaps: bool = False,
) -> Any:
    """Declare a field of an owner as a live control; the arguments are the attributes of `Control`.

    The field's annotation (float, int, bool or str) determines the kind; a str with `choices` is a choice.
    """
    row = dict(
        address=address,
        help=help,
        group=group,
        label=label,
        low=low,
        high=high,
        unit=unit,
        choices=choices,
        glides=glides,
        stored=stored,
        check=check,
        snaps=snaps,
    )
    return dataclasses.field(default=default, metadata={"live": row})


Edit = TypeVar("Edit", bound=Callable[..., Mapping[str, Any]])
"""A method of an owner that takes the command's arguments and returns the new values of the fields to change."""


def command(address: str, help: str, *, group: str, label: str, arguments: Arguments = ()) -> Callable[[Edit], Edit]:
    """Declare a method of an owner as a command with the method's name."""

    def mark(method: Edit) -> Edit:
        row = Command(method.__name__, address, arguments, group, label, help)
        method.command = row  # type: ignore[attr-defined]
        return method

    return mark


def controls_of(owner: type[Any]) -> tuple[Control, ...]:
    """The live controls that an owner declares, in order.

    Raises:
        TypeError: if a declaration is invalid; names the field and the reason.
    """
    found = []
    for item in dataclasses.fields(owner):
        row = item.metadata.get("live")
        if row is None:
            continue
        where = f"{owner.__name__}.{item.name}"
        annotation = item.type if isinstance(item.type, str) else item.type.__name__
        if annotation not in _KINDS:
            raise TypeError(f"{where}: a live control is a float, int, bool or str, not {annotation}.")
        kind = Kind.CHOICE if row["choices"] else _KINDS[annotation]
        control = Control(name=item.name, kind=kind, default=item.default, **row)
        if control.numeric and (control.low is None or control.high is None or not control.low < control.high):
            raise TypeError(f"{where}: a number needs `low` and `high`.")
        if not control.address.startswith("/"):
            raise TypeError(f"{where}: the address {control.address!r} does not begin with a slash.")
        if control.coerce(control.default) != control.default:
            raise TypeError(f"{where}: the default {control.default!r} is outside the range.")
        found.append(control)
    return tuple(found)


_KINDS = {"float": Kind.FLOAT, "int": Kind.INT, "bool": Kind.BOOL, "str": Kind.TEXT}


def commands_of(owner: type[Any]) -> tuple[Command, ...]:
    """The commands that an owner declares as methods, in order."""
    found = (getattr(method, "command", None) for method in vars(owner).values())
    return tuple(row for row in found if isinstance(row, Command))
