"""The show file: one JSON object, by convention with the extension `.tidecast`.

    {"tidecast": "show", "version": 1, "program": "0.1.0",
     "controls": {"mix": 1.0, ...},           what a recall may set; panic and recording never
     "snapshots": {"1": {"mix": 1.0, ...}},   as in the file of snapshots
     "midi": [{"cc": 1, "address": "/tidecast/strength"}],   as in the file of bindings
     "cues": {"loop": true, "cue": [{"name": "Intro", "snapshot": 1}]}}   as in the file of cues; without it, the
                                              cues stay as they are

`unpack` checks all of it. `pack` writes only what `unpack` takes: what another version left in a snapshot and is not
valid here is not exported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, NoReturn

from pydantic import ValidationError

from bridge.control.cues.cue_list import CueError, CueList, parsed
from bridge.control.midi.bindings import Binding
from bridge.control.snapshot_commands import COLORS, FIRST, LAST
from bridge.control.stored.content import COLOR_KEY, EXTRAS, LONGEST_NAME, NAME_KEY, PICTURE_KEY, plain, stored_names
from bridge.control.stored.thumbnail import decoded
from bridge.control.table import ControlTable
from engine.coercion import has_utf8, shown
from engine.control import ALWAYS, NEVER, Control
from engine.errors import ControlError, TidecastError

VERSION = 1
"""Version of the format."""

MAX_BYTES = 2 * 1024 * 1024
"""Most bytes of a file."""

MAX_BINDINGS = 1024
MAX_ENTRIES = 256
"""Most entries of one snapshot."""

NOT_IN_A_SHOW = "recording"
"""Word (`Control.stored`) of the controls that a show leaves alone: opening one starts and ends no recording."""

KEYS = ("tidecast", "version", "program", "controls", "snapshots", "midi", "cues")

Complain = Callable[[str], None]
"""Called with what is wrong; raises, or returns if that part is to be left out."""


class ShowError(TidecastError):
    """A show cannot be saved or opened."""


@dataclass(frozen=True, slots=True)
class Show:
    """What a show file holds.

    Attributes:
        snapshots: by number, as `bridge.control.stored.content` describes them.
        bindings: which knob moves what.
        controls: the values of live controls by name; empty if the file was saved while Tidecast did not run.
        program: version of the Tidecast that saved it.
        cues: the cue list; None if the file has none.
    """

    snapshots: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    controls: Mapping[str, Any] = field(default_factory=dict)
    program: str = ""
    cues: CueList | None = None

    @property
    def words(self) -> str:
        """What it holds, for people."""
        counts = {"snapshot": len(self.snapshots), "MIDI binding": len(self.bindings), "control": len(self.controls)}
        counts["cue"] = len(self.cues.cue) if self.cues is not None else 0
        always = ("snapshot", "MIDI binding")
        return ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n or what in always)


def show_names(table: ControlTable) -> tuple[str, ...]:
    """Names of the live controls whose values a show holds."""
    return tuple(c.name for c in table.controls if c.stored not in (NEVER, NOT_IN_A_SHOW))


def pack(show: Show, table: ControlTable) -> bytes:
    """A show as a file of this version.

    Raises:
        ShowError: if it would have more than `MAX_BYTES`.
    """
    names = show_names(table)
    content = {
        "tidecast": "show",
        "version": VERSION,
        "program": metadata.version("tidecast"),
        "controls": {name: value for name, value in show.controls.items() if name in names},
        "snapshots": {
            str(number): _snapshot("", plain(show.snapshots[number]), table, _leave_out)
            for number in sorted(show.snapshots)
            if FIRST <= number <= LAST
        },
        "midi": [binding.model_dump(exclude_defaults=True) for binding in show.bindings],
    }
    if show.cues is not None:
        content["cues"] = show.cues.rows()
    data = json.dumps(content, ensure_ascii=False, indent=1).encode()
    if len(data) > MAX_BYTES:
        raise ShowError(
            f"The show has {len(data):,} bytes; a file may have {MAX_BYTES:,}.", "Delete snapshots or cues."
        )
    return data


def unpack(data: bytes, table: ControlTable) -> Show:
    """The show in a file.

    Raises:
        ShowError: if it is too large, no show, of another version, or anything in it is not valid here.
    """
    if len(data) > MAX_BYTES:
        raise ShowError(f"The file is too large: a show has {MAX_BYTES:,} bytes at most.", "Choose a .tidecast file.")
    try:
        content = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("tidecast") != "show":
        raise ShowError("This is not a show of Tidecast.", "Choose a file that Save show or tidecast show export made.")
    program = content.get("program")
    program = program[:40] if isinstance(program, str) and program.isprintable() else "an unknown version"
    version = content.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise ShowError(
            f"The show has format {shown(version)}; this Tidecast reads format {VERSION}.",
            f"Open it with the version that saved it: {program}.",
        )
    for key in content:
        if key not in KEYS:
            _refuse(f"{shown(key)} is not part of a show")
    return Show(
        _snapshots(_object(content, "snapshots"), table),
        _bindings(content.get("midi", []), table),
        _controls(_object(content, "controls"), table),
        program,
        _cues(_object(content, "cues"), table) if "cues" in content else None,
    )


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _refuse(text: str) -> NoReturn:
    raise ShowError(f"{text}.", "Nothing was changed.")


def _leave_out(text: str) -> None:
    """Do not export this part."""


def _object(content: dict[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key, {})
    if not isinstance(found, dict):
        _refuse(f"{key}: {shown(found)} is not an object")
    return found


def _controls(values: dict[str, Any], table: ControlTable) -> dict[str, Any]:
    names = show_names(table)
    found = {}
    for name, value in values.items():
        if name not in table.by_name:
            _refuse(f"There is no control named {shown(name)}")
        if name not in names:
            _refuse(f"A show does not set {name}")
        found[name] = _value("Controls", table.by_name[name], value, _refuse)
    return found


def _cues(content: dict[str, Any], table: ControlTable) -> CueList:
    try:
        return parsed(content, table)
    except CueError as error:
        _refuse(f"Cues: {error.message.removesuffix('.')}")


def _bindings(rows: Any, table: ControlTable) -> tuple[Binding, ...]:
    if not isinstance(rows, list):
        _refuse(f"midi: {shown(rows)} is not a list")
    if len(rows) > MAX_BINDINGS:
        _refuse(f"There are {len(rows)} MIDI bindings; a show has {MAX_BINDINGS} at most")
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(Binding.model_validate(row, context=table))
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f", {part}" for part in first["loc"])
            _refuse(f"MIDI binding {number}{place}: {first['msg'].removeprefix('Value error, ')}")
    return tuple(found)


def _snapshots(rows: dict[str, Any], table: ControlTable) -> dict[int, dict[str, Any]]:
    if len(rows) > LAST - FIRST + 1:
        _refuse(f"There are {len(rows)} snapshots; Tidecast has {LAST - FIRST + 1}")
    found = {}
    for key, stored in rows.items():
        if key not in map(str, range(FIRST, LAST + 1)):
            _refuse(f"{shown(key)} is not the number of a snapshot ({FIRST} to {LAST})")
        if not isinstance(stored, dict):
            _refuse(f"Snapshot {key}: {shown(stored)} is not an object")
        if len(stored) > MAX_ENTRIES:
            _refuse(f"Snapshot {key} has {len(stored)} entries; {MAX_ENTRIES} are possible")
        found[int(key)] = _snapshot(f"Snapshot {key}", stored, table, _refuse)
    return found


def _snapshot(where: str, stored: Mapping[str, Any], table: ControlTable, complain: Complain) -> dict[str, Any]:
    """What of one snapshot is valid: values that its recall sets, what it is called and looks like, and plain values of
    controls that this version does not know."""
    known = {c.stored for c in table.controls} - {ALWAYS, NEVER}
    words = stored.get(EXTRAS, [])
    if not isinstance(words, list) or not all(isinstance(word, str) and word in known for word in words):
        complain(f"{where}: {shown(words)} is not a list of what can be stored besides the look")
        words = []
    recalled = stored_names(table, words)
    found: dict[str, Any] = {EXTRAS: list(words)} if words else {}
    for name, value in stored.items():
        if name == EXTRAS:
            continue
        if name == NAME_KEY:
            right = isinstance(value, str) and has_utf8(value) and " ".join(value.split())[:LONGEST_NAME] == value
            what = f"a name of up to {LONGEST_NAME} characters"
        elif name == COLOR_KEY:
            right, what = isinstance(value, str) and value in COLORS, f"one of {', '.join(COLORS)}"
        elif name == PICTURE_KEY:
            if decoded(value) is not None:  # one that is damaged or too large costs the snapshot only its picture
                found[name] = value
            continue
        elif name in table.by_name:
            if name in recalled and (right_value := _value(where, table.by_name[name], value, complain)) is not None:
                found[name] = right_value
            continue  # others are never recalled
        else:
            right = has_utf8(name) and (isinstance(value, (int, float)) or (isinstance(value, str) and has_utf8(value)))
            what = "a number or a text"
        if right:
            found[name] = value
        else:
            complain(f"{where}, {shown(name)}: {shown(value)} is not {what}")
    return found


def _value(where: str, control: Control, value: Any, complain: Complain) -> Any:
    """The valid value; None if there is none and the complaint returned."""
    try:
        right = control.coerce(value)
    except ControlError as error:
        complain(f"{where}, {control.name}: {error.message.removesuffix('.')}")
        return None
    if right != value or isinstance(right, bool) != isinstance(value, bool):
        complain(f"{where}, {control.name}: {shown(value)} is not valid; {shown(right)} would be")
    return right
