"""The operators, parameters and pages of the strict stand-in for TouchDesigner's Python (`touchdesigner.py`).

Strict where the real one is forgiving: a name that is neither in `names.json` nor below raises.
"""

from __future__ import annotations

import enum
import itertools
import json
import socket
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythonosc.osc_message_builder import OscMessageBuilder

from td_components.definition.graph import Graph, plain
from td_components.definition.spec import load_names

if TYPE_CHECKING:
    from tests.fakes.touchdesigner import FakeTouchDesigner

NAMES = load_names()

TOGGLES = frozenset(
    {
        "active",
        "valuechange",
        "onpulse",
        "custom",
        "builtin",
        "start",
        "create",
        "exit",
        "framestart",
        "frameend",
        "ext0promote",
        "splitbundle",
        "splitmessage",
        "syncfile",
        "loadonstart",
        "ramp",
        "countramp",
        "bpm",
    }
)
NUMBERS = frozenset({"port", "resolutionw", "resolutionh", "index", "connectorder", "maxlines", "fps", "period"})
PULSES = frozenset({"reinitextensions"})
DEFAULT_DOCKED = {"DAT:oscin": "callbacks", "DAT:ndi": "callbacks"}
"""Operators to which the real `create` docks a text DAT by itself."""


class ParMode(enum.Enum):
    """Where a parameter's value comes from."""

    CONSTANT = 0
    EXPRESSION = 1
    EXPORT = 2
    BIND = 3


class Par:
    """One parameter. Setting an attribute that the real class lacks, or a value of the wrong type, raises."""

    __slots__ = (
        "_expr",
        "_val",
        "clampMax",
        "clampMin",
        "default",
        "help",
        "label",
        "max",
        "menuLabels",
        "menuNames",
        "min",
        "mode",
        "name",
        "normMax",
        "normMin",
        "owner",
        "page",
        "readOnly",
        "startSection",
        "style",
    )

    def __init__(self, owner: Any, name: str, style: str) -> None:
        self.owner, self.name, self.style = owner, name, style
        self.label, self.page, self.help = name, "", ""
        self.min, self.max, self.normMin, self.normMax = 0.0, 1.0, 0.0, 1.0
        self.clampMin = self.clampMax = self.readOnly = self.startSection = False
        self.menuNames: list[str] = []
        self.menuLabels: list[str] = []
        self.mode = ParMode.CONSTANT
        self._expr = ""
        self._val: Any = "" if style in ("Str", "File", "Menu") else 0
        self.default: Any = self._val

    isToggle = property(lambda self: self.style == "Toggle")
    isNumber = property(lambda self: self.style in ("Float", "Int"))
    isMenu = property(lambda self: bool(self.menuNames))

    @property
    def val(self) -> Any:
        """The constant."""
        return self._val

    @val.setter
    def val(self, value: Any) -> None:
        checked = self._checked(value)
        changed = self.mode is not ParMode.CONSTANT or checked != self._val
        self.mode, self._val = ParMode.CONSTANT, checked
        self.owner.touched.add(self.name)
        if changed:
            self.owner.world.changed(self)

    @property
    def expr(self) -> str:
        """The expression."""
        return self._expr

    @expr.setter
    def expr(self, text: str) -> None:
        compile(text, f"{self.owner.path}.{self.name}", "eval")
        self.mode, self._expr = ParMode.EXPRESSION, text
        self.owner.touched.add(self.name)

    def eval(self) -> Any:
        """The value that is in force."""
        if self.mode is ParMode.EXPRESSION:
            return eval(self._expr, self.owner.scope())
        return self._val

    def pulse(self) -> None:
        """Press it."""
        if self.style != "Pulse":
            raise TypeError(f"{self.name} is not a pulse")
        self.owner.world.pulsed(self)

    def _checked(self, value: Any) -> Any:
        match self.style:
            case "Toggle" if isinstance(value, (bool, int, float)):
                return bool(value)
            case "Int" if isinstance(value, (bool, int, float)):
                return int(self._clamped(value))
            case "Float" if isinstance(value, (bool, int, float)):
                return float(self._clamped(value))
            case "Menu" if isinstance(value, str):
                if value not in self.menuNames:
                    raise ValueError(f"{self.owner.path}.{self.name} has no choice {value!r}")
                return value
            case "Str" | "File" if isinstance(value, str):
                return value
        raise TypeError(f"{self.owner.path}.{self.name} ({self.style}) does not take {value!r}")

    def _clamped(self, value: float) -> float:
        value = max(value, self.min) if self.clampMin else value
        return min(value, self.max) if self.clampMax else value


class ParCollection:
    """`op.par`: attributes raise for unknown names, square brackets give None."""

    _pars: dict[str, Par]

    def __init__(self, pars: dict[str, Par]) -> None:
        object.__setattr__(self, "_pars", pars)

    def __getattr__(self, name: str) -> Par:
        try:
            return self._pars[name]
        except KeyError:
            raise AttributeError(f"there is no parameter {name}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        getattr(self, name).val = value

    def __getitem__(self, name: str) -> Par | None:
        return self._pars.get(name)


class Page:
    """A page of custom parameters."""

    def __init__(self, comp: OP, name: str) -> None:
        self.comp, self.name = comp, name

    def _append(self, style: str, name: str, label: str | None, size: int) -> tuple[Par]:
        if size != 1 or not name[0].isupper() or not name.isalnum() or name[1:] != name[1:].lower():
            raise ValueError(f"{name} cannot be the name of a custom parameter")
        if name in self.comp.pars:
            raise ValueError(f"there is already a parameter {name}")
        par = Par(self.comp, name, style)
        par.label, par.page = label or name, self.name
        self.comp.pars[name] = par
        self.comp.custom.append(name)
        return (par,)

    def appendFloat(self, name: str, label: str | None = None, size: int = 1) -> tuple[Par]:
        """Append a number."""
        return self._append("Float", name, label, size)

    def appendInt(self, name: str, label: str | None = None, size: int = 1) -> tuple[Par]:
        """Append a whole number."""
        return self._append("Int", name, label, size)

    def appendToggle(self, name: str, label: str | None = None) -> tuple[Par]:
        """Append a switch."""
        return self._append("Toggle", name, label, 1)

    def appendStr(self, name: str, label: str | None = None) -> tuple[Par]:
        """Append a text."""
        return self._append("Str", name, label, 1)

    def appendPulse(self, name: str, label: str | None = None) -> tuple[Par]:
        """Append a button."""
        return self._append("Pulse", name, label, 1)

    def appendMenu(self, name: str, label: str | None = None) -> tuple[Par]:
        """Append a choice."""
        return self._append("Menu", name, label, 1)

    def appendFile(self, name: str, label: str | None = None) -> tuple[Par]:
        """Append a file."""
        return self._append("File", name, label, 1)


class Connector:
    """An input of an operator."""

    def __init__(self, op: OP, index: int) -> None:
        self.op, self.index = op, index

    def connect(self, source: OP) -> None:
        """Wire `source` to this input."""
        if source is None or self.op.comp_parent is not source.comp_parent:
            raise ValueError("only siblings can be wired")
        if not self.op.isCOMP and source.family != self.op.family:
            raise ValueError(f"a {source.family} cannot be wired to a {self.op.family}")
        self.op.wires[self.index] = source


class OP:
    """One operator of any family."""

    ids = itertools.count(1)

    def __init__(self, world: FakeTouchDesigner, kind: str, name: str, parent: OP | None) -> None:
        self.world, self.type_name, self.name, self.comp_parent = world, kind, name, parent
        self.id = next(self.ids)
        self.family = kind.partition(":")[0]
        self.OPType = NAMES.classes[kind]
        self.nodeX = self.nodeY = 0
        self.nodeWidth, self.nodeHeight = 130, 90
        self.comment = ""
        self.children: dict[str, OP] = {}
        self.wires: dict[int, OP] = {}
        self.pars: dict[str, Par] = {}
        self.custom: list[str] = []
        self.pages: list[Page] = []
        self.storage: dict[str, Any] = {}
        self.touched: set[str] = set()
        self._dock: OP | None = None
        for par in sorted(NAMES.parameters[kind] | PULSES if kind == "COMP:base" else NAMES.parameters[kind]):
            self.pars[par] = self._built_in(par)

    def _built_in(self, name: str) -> Par:
        words = NAMES.menus[self.type_name].get(name)
        style = "Toggle" if name in TOGGLES else "Float" if name in NUMBERS else "Menu" if words else "Str"
        par = Par(self, name, "Pulse" if name in PULSES else style)
        if words:
            par.menuNames, par._val = list(words), words[0]
        return par

    isCOMP = property(lambda self: self.family == "COMP")
    isCHOP = property(lambda self: self.family == "CHOP")
    par = property(lambda self: ParCollection(self.pars))
    docked = property(lambda self: [o for o in self._siblings() if o._dock is self])
    inputs = property(lambda self: [self.wires[i] for i in sorted(self.wires)])
    path = property(
        lambda self: "/" if self.comp_parent is None else f"{self.comp_parent.path.rstrip('/')}/{self.name}"
    )

    @property
    def inputConnectors(self) -> list[Connector]:
        """One for each input; a component has one for each In operator inside."""
        count = sum(c.type_name.endswith(":in") for c in self.children.values()) if self.isCOMP else 3
        return [Connector(self, i) for i in range(count)]

    @property
    def dock(self) -> OP | None:
        """The sibling to which this operator is docked."""
        return self._dock

    @dock.setter
    def dock(self, other: OP) -> None:
        if other.comp_parent is not self.comp_parent:
            raise ValueError("only siblings can be docked")
        self._dock = other

    def parent(self, levels: int = 1) -> OP:
        """The component around this operator."""
        assert levels == 1 and self.comp_parent is not None
        return self.comp_parent

    def op(self, path: str) -> OP | None:
        """The operator at a path that is seen from inside this component."""
        if path.startswith("/"):
            return self.world.root.op(path[1:]) if path != "/" else self.world.root
        node: OP | None = self
        for part in path.removeprefix("./").split("/"):
            if node is None:
                return None
            node = node.comp_parent if part == ".." else node.children.get(part)
        return node

    def scope(self) -> dict[str, Any]:
        """The names that expressions and scripts of this operator see."""
        inside = self if self.isCOMP else self.comp_parent
        assert inside is not None
        return {
            "me": self,
            "op": inside.op,
            "parent": lambda levels=1: self.parent(levels),
            "project": self.world.project,
            "ParMode": ParMode,
        }

    def store(self, key: str, value: Any) -> None:
        """Keep a value in the operator's storage."""
        self.storage[key] = value

    def fetch(self, key: str, default: Any = None, search: bool = True) -> Any:
        """A value from the storage; unless told otherwise, of the components around it too."""
        if key in self.storage or self.comp_parent is None or not search:
            return self.storage.get(key, default)
        return self.comp_parent.fetch(key, default)

    def unstore(self, key: str) -> None:
        """Forget a value."""
        self.storage.pop(key, None)

    def destroy(self) -> None:
        """Remove this operator."""
        assert self.comp_parent is not None
        del self.comp_parent.children[self.name]

    def _siblings(self) -> list[OP]:
        return list(self.comp_parent.children.values()) if self.comp_parent else []


class COMP(OP):
    """A component."""

    extension: Any = None

    def create(self, op_class: OpClass, name: str) -> OP:
        """Create an operator inside; some types bring a docked DAT along."""
        if name in self.children:
            raise ValueError(f"there is already a {name}")
        kind = op_class.kind
        made = CLASSES.get(kind.partition(":")[0], OP)(self.world, kind, name, self)
        self.children[name] = made
        suffix = DEFAULT_DOCKED.get(kind)
        if suffix:
            docked = DAT(self.world, "DAT:text", f"{name}_{suffix}", self)
            self.children[docked.name] = docked
            docked.dock = made
        return made

    def appendCustomPage(self, name: str) -> Page:
        """Append a page."""
        self.pages.append(Page(self, name))
        return self.pages[-1]

    @property
    def ext(self) -> types.SimpleNamespace:
        """The promoted extension, made at its first use."""
        if self.extension is None:
            self.initialise()
        return types.SimpleNamespace(**{self.pars["ext0name"].eval(): self.extension})

    def initialise(self) -> None:
        """Make the extension anew."""
        self.extension = eval(self.pars["ext0object"].eval(), self.scope())

    def save(self, path: str) -> str:
        """Write the plain form of this component to `path` (the real one writes a .tox)."""
        Path(path).write_text(json.dumps(graph(self)), encoding="utf-8")
        return path


class DAT(OP):
    """A text or a table."""

    def __init__(self, world: FakeTouchDesigner, kind: str, name: str, parent: OP | None) -> None:
        super().__init__(world, kind, name, parent)
        self._text = ""
        self._module: types.ModuleType | None = None
        self.rows: list[list[str]] = []
        self.socket: socket.socket | None = None

    numRows = property(lambda self: len(self.rows))
    numCols = property(lambda self: max((len(r) for r in self.rows), default=0))

    @property
    def text(self) -> str:
        """Contents of a text DAT."""
        return self._text

    @text.setter
    def text(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError("text is a str")
        self._text, self._module = text, None

    @property
    def module(self) -> types.ModuleType:
        """The text as a module; made once, and anew when the text has changed."""
        if self._module is None:
            module = types.ModuleType(self.name)
            module.__dict__.update(self.scope())
            exec(compile(self._text, self.path, "exec"), module.__dict__)
            self._module = module
        return self._module

    def clear(self) -> None:
        """Empty the table."""
        self.rows.clear()

    def appendRow(self, cells: list[Any]) -> None:
        """Append a row; every cell becomes text."""
        self.rows.append([str(cell) for cell in cells])

    def deleteRow(self, index: int) -> None:
        """Remove a row."""
        del self.rows[index]

    def __getitem__(self, at: tuple[int, int]) -> str:
        return self.rows[at[0]][at[1]]

    def __setitem__(self, at: tuple[int, int], value: Any) -> None:
        self.rows[at[0]][at[1]] = str(value)

    def sendOSC(self, address: str, values: list[Any]) -> int:
        """Send one OSC message; only an OSC Out DAT can."""
        if self.OPType != "oscoutDAT":
            raise AttributeError("only an oscoutDAT sends OSC")
        if not self.pars["active"].eval():
            return 0
        builder = OscMessageBuilder(address)
        for value in values:
            builder.add_arg(value)
        packet = builder.build().dgram
        target = (self.pars["address"].eval(), int(self.pars["port"].eval()))
        return self.world.sender.sendto(packet, target)


class CHOP(OP):
    """Channels; only the Beat CHOP has any here."""

    def __getitem__(self, name: str) -> types.SimpleNamespace | None:
        """A channel by its name; None if there is none."""
        if self.OPType != "beatCHOP" or name not in ("bpm", "countramp") or not self.pars[name].eval():
            return None
        beats = self.world.beats() / self.pars["period"].eval()
        return types.SimpleNamespace(eval=lambda: self.world.bpm if name == "bpm" else beats)


CLASSES: dict[str, type[OP]] = {"COMP": COMP, "DAT": DAT, "CHOP": CHOP}


class OpClass:
    """A class such as `fitTOP`, to be handed to `create`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def graph(comp: OP) -> Graph:
    """The plain form (see `graph.py`) of a component that was built here."""

    def settings(node: OP) -> dict[str, list[str]]:
        set_here = {name: node.pars[name] for name in sorted(node.touched - set(node.custom))}
        return {
            name: ["", par.expr] if par.mode is ParMode.EXPRESSION else [_text(par), ""]
            for name, par in set_here.items()
        }

    def parameter(par: Par) -> dict[str, Any]:
        return {
            "name": par.name,
            "label": par.label,
            "page": par.page,
            "style": par.style.upper(),
            "default": plain(par.default),
            "low": par.min if par.clampMin else None,
            "high": par.max if par.clampMax else None,
            "menu": [list(pair) for pair in zip(par.menuNames, par.menuLabels, strict=True)],
            "help": par.help,
            "section": par.startSection,
            "read_only": par.readOnly,
        }

    def node(child: OP) -> dict[str, Any]:
        runs_text = child.OPType in ("textDAT", "parameterexecuteDAT", "executeDAT")
        return {
            "type": child.type_name,
            "tile": [child.nodeX, child.nodeY, child.nodeWidth, child.nodeHeight],
            "settings": settings(child),
            "inputs": [source.name for source in child.inputs],
            "dock": child.dock.name if child.dock else "",
            "text": child.text if runs_text and isinstance(child, DAT) else None,
        }

    return {
        "name": comp.name,
        "comment": comp.comment,
        "pages": [page.name for page in comp.pages],
        "parameters": [parameter(comp.pars[name]) for name in comp.custom],
        "settings": settings(comp),
        "nodes": {name: node(child) for name, child in comp.children.items()},
    }


def _text(par: Par) -> str:
    if par.style == "Toggle":
        return "on" if par.val else "off"
    return str(int(par.val)) if par.style == "Float" and par.val == int(par.val) else str(par.val)
