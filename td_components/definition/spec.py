"""What a TouchDesigner component consists of: pages of custom parameters, operators, settings, wires.

Plain frozen data, independent of Tidecast. `pages.py` and `network.py` define Tidecast's component; `expanded.py` and
`builder.py` write it in two formats.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
"""The folder `td_components`, which holds everything that is generated."""

BUILD = "2023.11340"
"""The TouchDesigner build in whose text format the expanded tree is written."""


class Style(enum.IntEnum):
    """Kind of a custom parameter; the numbers are those of the `.cparm` format."""

    FLOAT = 1
    INT = 2
    TOGGLE = 3
    STR = 4
    PULSE = 5
    MENU = 15
    FILE = 16
    FOLDER = 17


@dataclass(frozen=True, slots=True)
class Parameter:
    """One custom parameter of the component.

    Attributes:
        name: a capital letter, then lower-case letters and digits.
        label: what the page shows.
        page: the page that shows it.
        style: its kind.
        default: value at the start; a number, text, bool, or a word of the menu.
        low, high: inclusive range of a number; None for every other style.
        menu: (word, label) of each choice of a menu.
        help: the text that TouchDesigner shows when the pointer rests on the parameter.
        section: whether a line is drawn above it.
        read_only: shown, but cannot be changed by hand.
    """

    name: str
    label: str
    page: str
    style: Style
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    menu: tuple[tuple[str, str], ...] = ()
    section: bool = False
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """A built-in parameter of an operator with a value other than its default: a constant or an expression."""

    name: str
    value: str = ""
    expression: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator inside the component.

    Attributes:
        name: its name.
        type: FAMILY:type as the expanded format writes it, such as `TOP:fit`.
        x, y: lower left corner of its tile in the network editor.
        settings: its built-in parameters whose values are not the defaults.
        inputs: names of the siblings that are wired to its inputs, in order.
        dock: name of the sibling to which it is docked; empty for none.
        text: contents of a text DAT or of a DAT that runs a script; None for other operators.
    """

    name: str
    type: str
    x: int
    y: int
    settings: tuple[Setting, ...] = ()
    inputs: tuple[str, ...] = ()
    dock: str = ""
    text: str | None = None

    @property
    def family(self) -> str:
        """TOP, CHOP, DAT or COMP."""
        return self.type.partition(":")[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its tile."""
        return (160, 130) if self.family == "DAT" else (130, 90)


@dataclass(frozen=True, slots=True)
class Component:
    """A whole component.

    Attributes:
        name: its name; also that of its files.
        pages: the pages of custom parameters, in order.
        parameters: every custom parameter; those of one page in its order.
        settings: built-in parameters of the component itself.
        nodes: the operators inside.
        comment: what the network editor shows beside it.
    """

    name: str
    pages: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    settings: tuple[Setting, ...]
    nodes: tuple[Node, ...]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """The committed allow-list of operator types, parameter names and menu words (`names.json`)."""

    classes: dict[str, str]
    parameters: dict[str, frozenset[str]]
    menus: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


def load_names() -> Names:
    """Read the allow-list."""
    table = json.loads((HERE / "names.json").read_text(encoding="utf-8"))["operators"]
    return Names(
        classes={t: row["class"] for t, row in table.items()},
        parameters={t: frozenset(row["public"]) | frozenset(row["manual"]) for t, row in table.items()},
        menus={t: {n: tuple(words) for n, words in row["menus"].items()} for t, row in table.items()},
    )
