"""The OSCQuery description of the namespace: a tree of JSON nodes, built from the table.

With OSCQuery (a proposal by Vidvox) programs such as Chataigne, ossia score and Vuo read which controls there are, with
types, ranges and current values. `oscquery.http` serves the tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.control.table import ControlTable
from engine.control import PREFIX, Command, Control, Kind, Reading

READ, WRITE, READ_WRITE = 1, 2, 3
"""Values of ACCESS."""

ATTRIBUTES = frozenset(
    {"FULL_PATH", "CONTENTS", "DESCRIPTION", "ACCESS", "TYPE", "VALUE", "RANGE", "CLIPMODE", "UNIT", "TAGS", "CRITICAL"}
)
"""The attributes that a node can have and a client can query."""

EXTENSIONS = {
    "ACCESS": True,
    "VALUE": True,
    "RANGE": True,
    "DESCRIPTION": True,
    "TAGS": True,
    "CLIPMODE": True,
    "UNIT": True,
    "CRITICAL": True,
    "EXTENDED_TYPE": False,
    "LISTEN": True,
    "PATH_CHANGED": False,
    "HTML": False,
    "OVERLOADS": False,
}

_TYPES = {Kind.FLOAT: "f", Kind.INT: "i", Kind.TEXT: "s", Kind.CHOICE: "s"}

_UNITS = {"s": "time.second", "ms": "time.millisecond"}
"""OSCQuery's names for units; other units have none."""


def host_info(name: str, osc_host: str, osc_port: int) -> dict[str, Any]:
    """The answer to `?HOST_INFO`. For a wildcard address OSC_IP is left out: clients then use the address of the HTTP
    server."""
    info: dict[str, Any] = {"NAME": name, "OSC_PORT": osc_port, "OSC_TRANSPORT": "UDP", "EXTENSIONS": EXTENSIONS}
    if osc_host not in ("", "0.0.0.0", "::"):
        info["OSC_IP"] = osc_host
    return info


def tree(table: ControlTable, values: Mapping[str, Any], readings: Mapping[str, Any]) -> dict[str, Any]:
    """The whole tree.

    Args:
        table: the controls, commands and readings.
        values: name and effective value of every control.
        readings: name and newest value of the readings that have one.
    """
    root = _container("/", "Tidecast: live video, restyled while it plays.")
    for control in table.controls:
        value = values[control.name]
        _place(root, PREFIX + control.address, _control(control, value))
        if control.numeric:
            norm, midi = control.to_norm(value), control.to_midi(value)
            _place(root, f"{PREFIX}{control.address}/norm", _twin(control, "f", norm, 1, "0 to 1 over its range"))
            _place(root, f"{PREFIX}{control.address}/midi", _twin(control, "i", midi, 127, "0 to 127 over its range"))
    for command in table.commands:
        _place(root, PREFIX + command.address, _command(command))
    for reading in table.readings:
        _place(root, PREFIX + reading.address, _reading(reading, readings.get(reading.name)))
    return root


def find(root: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """The node at a path, or None."""
    node = root
    for part in path.strip("/").split("/"):
        if part:
            found = node.get("CONTENTS", {}).get(part)
            if found is None:
                return None
            node = found
    return node


def _container(path: str, description: str = "") -> dict[str, Any]:
    node: dict[str, Any] = {"FULL_PATH": path, "ACCESS": 0, "CONTENTS": {}}
    if description:
        node["DESCRIPTION"] = description
    return node


def _place(root: dict[str, Any], path: str, node: dict[str, Any]) -> None:
    """Put a node at its path; if there is a container already, its contents are kept."""
    *parents, last = path.strip("/").split("/")
    at, where = root, ""
    for part in parents:
        where += "/" + part
        at = at.setdefault("CONTENTS", {}).setdefault(part, _container(where))
    contents = at.setdefault("CONTENTS", {})
    inside = contents.get(last, {}).get("CONTENTS")
    contents[last] = {"FULL_PATH": path, **node} | ({"CONTENTS": inside} if inside else {})


def _control(control: Control, value: Any) -> dict[str, Any]:
    node: dict[str, Any] = {
        "DESCRIPTION": control.help,
        "ACCESS": READ_WRITE,
        "VALUE": [value],
        "TAGS": [control.group],
    }
    node["TYPE"] = ("T" if value else "F") if control.kind is Kind.BOOL else _TYPES[control.kind]
    if control.numeric:
        node |= {"RANGE": [{"MIN": control.low, "MAX": control.high}], "CLIPMODE": ["both"]}
    if control.choices:
        node["RANGE"] = [{"VALS": list(control.choices)}]
    if control.unit in _UNITS:
        node["UNIT"] = [_UNITS[control.unit]]
    return node


def _twin(control: Control, tag: str, value: float, high: int, words: str) -> dict[str, Any]:
    return {
        "DESCRIPTION": f"{control.label}: {words}.",
        "ACCESS": READ_WRITE,
        "TYPE": tag,
        "VALUE": [value],
        "RANGE": [{"MIN": 0, "MAX": high}],
        "CLIPMODE": ["both"],
        "TAGS": [control.group],
    }


def _command(command: Command) -> dict[str, Any]:
    tags = "".join(tag for _, tag, _ in command.arguments if tag != "*")
    return {
        "DESCRIPTION": command.help,
        "ACCESS": WRITE,
        "TYPE": tags or "I",
        "TAGS": [command.group],
        "CRITICAL": True,
    }


def _reading(reading: Reading, value: Any) -> dict[str, Any]:
    node: dict[str, Any] = {
        "DESCRIPTION": reading.help,
        "ACCESS": READ,
        "TYPE": _TYPES[reading.kind],
        "TAGS": ["Status"],
    }
    if value is not None:
        node["VALUE"] = [value]
    if reading.unit in _UNITS:
        node["UNIT"] = [_UNITS[reading.unit]]
    return node
