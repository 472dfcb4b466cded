"""Which knob moves which control: the bindings, their file, and soft takeover. Opens no MIDI port.

The file is TOML, one `[[binding]]` per knob, and can be edited by hand:

    [[binding]]
    port = "nanoKONTROL2"          # part of the port's name; empty for any
    channel = 1                    # 1 to 16; 0 for any
    cc = 7                         # or: note = 36
    address = "/tidecast/strength"
    # fine = true                  # 14 bits: this number is the coarse half, the number 32 above it the fine half
    # toggle = true                # each press switches the control on or off
    # args = [3, 2.0]              # sent at each press, as for address = "/tidecast/snapshot/recall"
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from bridge.control.files import set_aside, write_atomically
from bridge.control.table import ControlTable
from engine.control import PREFIX, Kind
from engine.errors import ControlError, TidecastError

CATCH = 2.0
"""A knob within this distance (of 127) of a control's value takes the control over."""


class BindingsError(TidecastError):
    """The file of bindings cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One knob, fader, button or pad: where its messages come from.

    Attributes:
        port: name of the port, without the numbers that change each time it is plugged in.
        channel: 1..16.
        kind: `cc` or `note`.
        number: controller or note number, 0..127.
    """

    port: str
    channel: int
    kind: str
    number: int

    def __str__(self) -> str:
        name = "CC" if self.kind == "cc" else "note"
        return f"{self.port}: {name} {self.number}, channel {self.channel}"


class Binding(BaseModel):
    """One entry of the file; see the module's docstring.

    When a table of controls is given as pydantic's context, the address must be one of that table and suit the other
    fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: str = ""
    channel: int = Field(default=0, ge=0, le=16)
    cc: int | None = Field(default=None, ge=0, le=127)
    note: int | None = Field(default=None, ge=0, le=127)
    address: str
    fine: bool = False
    toggle: bool = False
    args: tuple[bool | int | float | str, ...] = ()

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Binding:
        if (self.cc is None) == (self.note is None):
            raise ValueError("either cc or note is needed")
        if self.fine and (self.cc is None or self.cc > 31):
            raise ValueError("fine needs a cc from 0 to 31")
        if info.context is None:
            return self
        target = info.context.targets.get(self.address)
        if target is None or target.twin:
            raise ValueError(f"there is no control at {self.address!r}")
        if self.toggle and (target.control is None or target.control.kind is not Kind.BOOL):
            raise ValueError("toggle needs a control that is on or off")
        if not self.args and target.control is not None and target.control.kind is Kind.TEXT:
            raise ValueError("a text needs args, the words to set")
        if target.command is not None:
            try:
                target.command.coerce(self.args)
            except ControlError as error:
                raise ValueError(error.message) from None
        return self

    @property
    def words(self) -> str:
        """A description of the knob, for lists."""
        what = f"CC {self.cc}" if self.cc is not None else f"note {self.note}"
        where = f", channel {self.channel}" if self.channel else ""
        return f"{self.port + ': ' if self.port else ''}{what}{where}{', 14 bits' if self.fine else ''}"

    def matches(self, knob: Knob) -> bool:
        """Whether this binding belongs to the knob (or to its fine half, for a 14-bit knob)."""
        if self.port not in knob.port or self.channel not in (0, knob.channel):
            return False
        if knob.kind == "note":
            return self.note == knob.number
        return self.cc is not None and knob.number in ((self.cc, self.cc + 32) if self.fine else (self.cc,))


DEFAULT = tuple(
    Binding(cc=cc, address=PREFIX + address)
    for cc, address in (
        (1, "/strength"),
        (7, "/mix"),
        (71, "/steps"),
        (74, "/motion"),
        (64, "/freeze"),
        (20, "/prompt/1/weight"),
        (21, "/prompt/2/weight"),
        (22, "/prompt/3/weight"),
        (23, "/prompt/4/weight"),
    )
)
"""The bindings if there is no file: modulation wheel, volume, resonance, cutoff, sustain pedal, CC 20 to 23."""


def defaults(table: ControlTable) -> tuple[Binding, ...]:
    """`DEFAULT`, without addresses that this table does not have."""
    return tuple(binding for binding in DEFAULT if binding.address in table.targets)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    binding: list[Binding] = Field(default_factory=list)


def load(path: Path, table: ControlTable) -> tuple[Binding, ...]:
    """The bindings of a file; `DEFAULT` if there is none.

    Raises:
        BindingsError: if the file cannot be read or is damaged; it says what is wrong and where. A damaged file is
            renamed.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return tuple(_File.model_validate(content, context=table).binding)
    except FileNotFoundError:
        return defaults(table)
    except OSError as error:
        raise BindingsError(f"{path} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p + 1) if isinstance(p, int) else str(p) for p in first["loc"])
        reason = f"{place}: {first['msg']}"
    except ValueError as error:  # TOML or UTF-8
        reason = str(error)
    try:
        aside = set_aside(path)
    except OSError as error:
        raise BindingsError(f"{path}: {reason}; it cannot be set aside ({error.strerror}).") from error
    raise BindingsError(f"{path}: {reason}.", f"It was set aside as {aside.name}. Correct it and rename it back.")


def save(path: Path, bindings: tuple[Binding, ...]) -> None:
    """Write the bindings, replacing the file atomically; what another Tidecast has learned since is lost unless the
    caller holds the lock of the file (`files.locked`) and has read it under the lock.

    Raises:
        BindingsError: if that is impossible; the old file is unchanged.
    """
    rows = [b.model_dump(exclude_defaults=True) for b in bindings]
    for row in rows:
        if "args" in row:
            row["args"] = list(row["args"])
    try:
        write_atomically(path, tomli_w.dumps({"binding": rows}).encode())
    except OSError as error:
        raise BindingsError(f"{path} cannot be written ({error.strerror}).") from error


def resolve(address: str, table: ControlTable) -> str:
    """The full address of a control or command, from a full address, one below the prefix, or a control's name.

    Raises:
        ControlError: if there is none, or if it cannot be bound to a knob alone.
    """
    names = {n: PREFIX + c.address for n, c in table.by_name.items()}
    for full in (address, PREFIX + address, names.get(address, "")):
        if full in table.targets:
            try:
                Binding.model_validate({"cc": 0, "address": full}, context=table)
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ControlError(full, f"It cannot be learned: {reason}.") from None
            return full
    raise ControlError(address, "There is no control of this address or name.", "`tidecast osc list` lists them.")


def learned(bindings: tuple[Binding, ...], knob: Knob, address: str, table: ControlTable) -> tuple[Binding, ...]:
    """`bindings` with the knob bound to the address; replaces what the knob did and what moved the control before."""
    control = table.targets[address].control
    new = Binding(
        port=knob.port,
        channel=knob.channel,
        address=address,
        cc=knob.number if knob.kind == "cc" else None,
        note=knob.number if knob.kind == "note" else None,
        toggle=knob.kind == "note" and control is not None and control.kind is Kind.BOOL,
    )
    return (*(b for b in bindings if not b.matches(knob) and (b.address != address or b.args)), new)


def stable_name(port: str) -> str:
    """A port's name without the part that changes each time it is plugged in: ALSA's numbers, Windows' index."""
    return re.sub(r"\s+(\d+:\d+|\d+)$", "", port)


class Takeover:
    """Soft takeover of one control by one knob: after something else has set the control (a recalled snapshot, another
    controller), the knob has no effect until it reaches or passes the control's value."""

    def __init__(self) -> None:
        self._caught = False
        self._last: float | None = None

    def moved(self, position: float, current: float) -> bool:
        """Note that the knob moved to `position`; returns whether it may set the control, which is at `current` (both
        0..127)."""
        last, self._last = self._last, position
        if not self._caught:
            near = abs(position - current) <= CATCH
            passed = last is not None and (last - current) * (position - current) <= 0.0
            self._caught = near or passed
        return self._caught

    def changed(self, current: float) -> None:
        """Note that something else set the control to `current` (0..127)."""
        if self._last is None or abs(self._last - current) > CATCH:
            self._caught = False


def press(value: int, before: int) -> bool:
    """Whether a button that sends 0..127 was pressed: it went from the lower half to the upper."""
    return value >= 64 > before


def scaled(binding: Binding, coarse: int, fine: int) -> float:
    """A knob's position as 0..127, with the fine half of a 14-bit knob as the fraction."""
    return (coarse * 128 + fine) / 16383 * 127 if binding.fine else float(coarse)


def choice(value: float, count: int) -> int:
    """The index of a choice among `count` for a knob at 0..127."""
    return min(int(value * count / 128), count - 1)


def summary(bindings: tuple[Binding, ...]) -> dict[str, str]:
    """A description of the knobs by address, for pages and lists."""
    out: dict[str, str] = {}
    for b in bindings:
        key = b.address + "".join(f" {a}" for a in b.args)
        out[key] = f"{out[key]}; {b.words}" if key in out else b.words
    return out
