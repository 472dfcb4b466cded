"""`CueList` and `Cue`: what a list holds, and the checks of it. Knows no file and no time.

Without a table of controls as pydantic's context the values of a cue are taken as they are; with one, each must name a
control of the table and be valid for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from bridge.control.cues.lengths import Length, length, wait_length
from bridge.control.snapshot_commands import FIRST, LAST
from bridge.control.table import ControlTable
from bridge.control.tempo.controls import SNAPS
from engine.coercion import has_utf8, shown
from engine.control import NEVER, PREFIX, Control
from engine.errors import ControlError, TidecastError

MAX_CUES = 256
LONGEST_NAME = 40
LONGEST_TEXT = 1000
"""Most characters of a text that a cue sets."""

MOST_TIMES = 999

TEMPO_GROUP = "Tempo"
"""Group of the controls that a cue may set although no snapshot holds them: a song has its tempo."""


class CueError(TidecastError):
    """A cue list is not valid, or its file cannot be read or written."""


def _name(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    if len(text) > LONGEST_NAME or not has_utf8(text) or not text.isprintable():
        raise ValueError(f"{shown(value)} is not a name of up to {LONGEST_NAME} characters")
    return text


def _glide(value: Any) -> Length | None:
    return None if value is None else length(value)


def _snap(value: Any) -> Any:
    if value is not None and value not in SNAPS:
        raise ValueError(f"{shown(value)} is not one of {', '.join(SNAPS)}")
    return value


class Cue(BaseModel):
    """One cue: what it sets, how long that takes, and when the next one begins.

    Attributes:
        name: unique in the list; may be empty.
        snapshot: number of the snapshot that it recalls.
        prompt: the only prompt.
        values: values by the names of their controls, in place of what snapshot and prompt say. The key of a file is
            `set`, and takes addresses too.
        glide: how long the values take that can glide; None for none.
        wait: time from the begin of this cue to that of the next one; None for GO.
        follow: the next one begins as soon as this one's glide has ended.
        loop: name of the cue that comes after this one, in place of the next one.
        times: how often it does; 0 for ever.
        snap: a word of the control `snap`, for the begin of this cue; None for the control's value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: Annotated[str, BeforeValidator(_name)] = ""
    snapshot: int | None = Field(default=None, ge=FIRST, le=LAST)
    prompt: str | None = Field(default=None, max_length=LONGEST_TEXT)
    values: Mapping[str, Any] = Field(default_factory=dict, alias="set")
    glide: Annotated[Length | None, BeforeValidator(_glide)] = None
    wait: Annotated[Length | None, BeforeValidator(wait_length)] = None
    follow: bool = False
    loop: Annotated[str, BeforeValidator(_name)] = ""
    times: int = Field(default=0, ge=0, le=MOST_TIMES)
    snap: Annotated[str | None, BeforeValidator(_snap)] = None

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Cue:
        if self.follow and self.wait is not None:
            raise ValueError("follow: the next cue begins when the glide has ended; give either wait or follow")
        if self.times and not self.loop:
            raise ValueError("times: it needs loop, the name of the cue that comes next")
        if self.snapshot is None and self.prompt is None and not self.values:
            raise ValueError("it sets nothing; give it snapshot, prompt or set")
        if info.context is not None:
            object.__setattr__(self, "values", _valid_values(self.values, info.context))
            if self.prompt is not None:
                _valid_value("prompt", _control("prompt_1", info.context), self.prompt)
        return self

    @property
    def holds(self) -> Length | None:
        """How long it is the present cue before the next one begins by itself; None for until GO."""
        return (self.glide or length(0)) if self.follow else self.wait

    @property
    def words(self) -> str:
        """What it sets, for people."""
        parts = [f"snapshot {self.snapshot}"] if self.snapshot is not None else []
        if self.prompt is not None:
            parts.append(self.prompt)
        if self.values:
            parts.append("1 value" if len(self.values) == 1 else f"{len(self.values)} values")
        return ", ".join(parts)

    def own_values(self, table: ControlTable) -> dict[str, Any]:
        """The values that it sets itself, by name: those of its prompt and its own."""
        found: dict[str, Any] = {}
        if self.prompt is not None:
            weights = (name for name in table.by_name if name.startswith("weight_"))
            found = {"prompt_1": self.prompt, **dict.fromkeys(weights, 0.0), "weight_1": 1.0}
        return {**found, **self.values}

    def row(self) -> dict[str, Any]:
        """It as plain data, without what is as usual; `Cue.model_validate` reads it."""
        found: dict[str, Any] = {
            "name": self.name,
            "snapshot": self.snapshot,
            "prompt": self.prompt,
            "glide": self.glide and str(self.glide),
            "wait": self.wait and str(self.wait),
            "follow": self.follow,
            "loop": self.loop,
            "times": self.times,
            "snap": self.snap,
            "set": dict(self.values),
        }
        usual: tuple[Any, ...] = ("", None, False, 0, {})
        return {key: value for key, value in found.items() if value not in usual or (key == "prompt" and value == "")}


class CueList(BaseModel):
    """A list of cues, in their order.

    Attributes:
        loop: whether the first one comes after the last one.
        cue: the cues.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loop: bool = False
    cue: tuple[Cue, ...] = Field(default=(), max_length=MAX_CUES)

    @model_validator(mode="after")
    def _check(self) -> CueList:
        names = [cue.name for cue in self.cue if cue.name]
        for number, cue in enumerate(self.cue, 1):
            if cue.name and names.count(cue.name) > 1:
                raise ValueError(f"{called(number, cue.name)}: there is another cue of this name")
            if cue.loop and cue.loop not in names:
                raise ValueError(f"{called(number, cue.name)}, loop: there is no cue named {cue.loop!r}")
        return self

    def index(self, target: Any) -> int | None:
        """The place, from 0, of the cue with this name or number (from 1); None if there is none."""
        if isinstance(target, str):
            for at, cue in enumerate(self.cue):
                if cue.name and cue.name == " ".join(target.split()):
                    return at
            if not (target.isascii() and target.isdigit() and len(target) < 9):
                return None
        elif isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target <= MAX_CUES:
            return None
        if float(target) != int(target):
            return None
        number = int(target)
        return number - 1 if 1 <= number <= len(self.cue) else None

    def find_again(self, cue: Cue, at: int) -> int | None:
        """Where a cue of another version of this list is now: under its name, without one at its old place."""
        if cue.name:
            return self.index_of_name(cue.name)
        return at if at < len(self.cue) else None

    def index_of_name(self, name: str) -> int | None:
        """The place of the cue of this name; None if there is none."""
        return next((at for at, cue in enumerate(self.cue) if cue.name == name), None)

    def rows(self) -> dict[str, Any]:
        """It as plain data; `parsed` reads it."""
        return {**({"loop": True} if self.loop else {}), "cue": [cue.row() for cue in self.cue]}


EMPTY = CueList()


def called(number: int, name: str) -> str:
    """A cue in an error message."""
    return f"cue {number} ({name})" if name else f"cue {number}"


def made(cues: Iterable[Cue], loop: bool) -> CueList:
    """A list of cues that are valid each.

    Raises:
        CueError: if they are not valid together.
    """
    try:
        return CueList(loop=loop, cue=tuple(cues))
    except ValidationError as error:
        raise CueError(_reason(error, []) + ".") from None


def parsed(content: Any, table: ControlTable) -> CueList:
    """The list in plain data, as a TOML file or a show file holds it.

    Raises:
        CueError: if it is not valid; names the cue and the key.
    """
    try:
        return CueList.model_validate(content, context=table)
    except ValidationError as error:
        rows = content.get("cue") if isinstance(content, dict) else None
        raise CueError(_reason(error, rows if isinstance(rows, list) else []) + ".") from None


def edited(cue: Cue, table: ControlTable, **changes: Any) -> Cue:
    """A cue with some keys changed.

    Raises:
        CueError: if it is not valid then; names the key.
    """
    try:
        return Cue.model_validate(cue.row() | changes, context=table)
    except ValidationError as error:
        raise CueError(_reason(error, []) + ".") from None


def settable(control: Control) -> bool:
    """Whether a cue may set this control: what a snapshot can hold, and the tempo. Panic buttons are the hand's."""
    return control.stored != NEVER or control.group == TEMPO_GROUP


def _control(key: str, table: ControlTable) -> Control:
    target = table.targets.get(key) or table.targets.get(PREFIX + key)
    control = table.by_name.get(key) or (target.control if target is not None and not target.twin else None)
    if control is None:
        near = difflib.get_close_matches(key, table.by_name, n=1, cutoff=0.55)
        raise ValueError(f"there is no control {shown(key)}" + (f"; did you mean {near[0]}?" if near else ""))
    return control


def _valid_values(values: Mapping[str, Any], table: ControlTable) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        try:
            control = _control(key, table)
        except ValueError as error:
            raise ValueError(f"set: {error}") from None
        if not settable(control):
            raise ValueError(f"set: {control.name} is not set by a cue")
        if control.name in found:
            raise ValueError(f"set: {control.name} is there twice")
        found[control.name] = _valid_value("set", control, value)
    return found


def _valid_value(key: str, control: Control, value: Any) -> Any:
    try:
        valid = control.coerce(value)
    except ControlError as error:
        raise ValueError(f"{key}, {control.name}: {error.message.removesuffix('.')}") from None
    if control.numeric and float(value) != float(valid):
        raise ValueError(f"{key}, {control.name}: {shown(value)} is not within {control.low:g} to {control.high:g}")
    if isinstance(valid, str) and len(valid) > LONGEST_TEXT:
        raise ValueError(f"{key}, {control.name}: a text has {LONGEST_TEXT} characters at most")
    return valid


def _reason(error: ValidationError, rows: list[Any]) -> str:
    """The first thing that is wrong, with its place."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    words = first["msg"].removeprefix("Value error, ")
    if len(first["loc"]) >= 2 and first["loc"][0] == "cue" and isinstance(first["loc"][1], int):
        at = first["loc"][1]
        row = rows[at] if at < len(rows) else None
        name = row.get("name") if isinstance(row, dict) else None
        place = [called(at + 1, name[:LONGEST_NAME] if isinstance(name, str) else ""), *place[2:]]
    if first["type"] == "extra_forbidden":
        words = "there is no such key"
    return ": ".join([", ".join(place), words] if place else [words])
