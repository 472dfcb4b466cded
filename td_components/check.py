"""Checks an expanded component: `python -m td_components.check DIR`.

Beyond the grammar (`grammar.py`), every operator type, parameter and menu word must be in the allow-list `names.json`;
wires, docks and references must resolve; expressions and scripts must be Python 3.11; custom parameters must have help,
and values within their ranges. Whether TouchDesigner accepts the component is a separate question: see `VERIFIED.md`.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

from td_components.definition.spec import Names, load_names
from td_components.output.grammar import Tree, read
from td_components.output.lines import GrammarError

PYTHON = (3, 11)
"""The Python of current TouchDesigner builds."""

REFERENCES = ("callbacks", "dat")
"""Parameters whose value names a sibling."""

OWN_SCRIPT = ("DAT:parexec", "DAT:execute")
"""Operators that run their own text as a script."""

NUMBERS = ("FLOAT", "INT")


def faults(folder: Path) -> list[str]:
    """Everything that is wrong with the tree in `folder`, one sentence each, naming file or operator."""
    try:
        tree = read(folder)
    except GrammarError as error:
        return [str(error)]
    names = load_names()
    graph = tree.graph
    custom = {p["name"] for p in graph["parameters"]}
    found = [str(error) for error in tree.errors]
    found += _parameters(graph["parameters"])
    found += _settings(graph["name"], "COMP:base", graph["settings"], names, custom)
    for name, node in sorted(graph["nodes"].items()):
        found += _node(name, node, graph["nodes"], names, custom)
    found += _extension(graph)
    found += _connectors(folder, tree)
    found += _cycles(graph["nodes"])
    return found


def _parameters(rows: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        name, default = row["name"], row["default"]
        if not row["help"]:
            found.append(f"parameter {name}: has no help")
        if row["style"] in NUMBERS and row["low"] is not None and row["high"] is not None:
            if row["low"] >= row["high"]:
                found.append(f"parameter {name}: its range {row['low']:g} to {row['high']:g} is empty")
            elif not row["low"] <= default <= row["high"]:
                found.append(f"parameter {name}: its default {default:g} is outside its range")
        if row["style"] == "MENU":
            words = [word for word, _label in row["menu"]]
            if not words or len(set(words)) != len(words):
                found.append(f"parameter {name}: its menu is empty or has a word twice")
            elif row.get("value", words[0]) not in words:
                found.append(f"parameter {name}: its value {row['value']!r} is not in its menu")
        if row["style"] == "TOGGLE" and row.get("value", "off") not in ("on", "off"):
            found.append(f"parameter {name}: its value {row['value']!r} is neither on nor off")
        if row["style"] in NUMBERS and not _number(row.get("value", "0")):
            found.append(f"parameter {name}: its value {row['value']!r} is not a number")
    return found


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _settings(place: str, kind: str, settings: dict[str, list[str]], names: Names, custom: set[str]) -> list[str]:
    found = []
    for name, (value, expression) in settings.items():
        if name not in names.parameters[kind]:
            found.append(f"{place}: {kind} has no parameter {name} (names.json)")
        words = names.menus[kind].get(name)
        if words and not expression and value not in words:
            found.append(f"{place}: {name} has no choice {value!r}, only {', '.join(words)}")
        if expression:
            found += _expression(f"{place}.{name}", expression, custom)
    return found


def _expression(place: str, expression: str, custom: set[str]) -> list[str]:
    try:
        parsed = ast.parse(expression, mode="eval", feature_version=PYTHON)
    except SyntaxError as error:
        return [f"{place}: the expression {expression!r} is not Python: {error.msg}"]
    found = []
    for item in ast.walk(parsed):
        if (
            isinstance(item, ast.Attribute)
            and isinstance(item.value, ast.Attribute)
            and item.value.attr == "par"
            and item.attr not in custom
        ):
            found.append(f"{place}: the component has no parameter {item.attr}")
    return found


def _node(name: str, node: dict[str, Any], siblings: dict[str, Any], names: Names, custom: set[str]) -> list[str]:
    kind = node["type"]
    if kind not in names.classes:
        return [f"{name}: the operator type {kind} is not in names.json"]
    found = _settings(name, kind, node["settings"], names, custom)
    family = kind.partition(":")[0]
    for source in node["inputs"]:
        if source not in siblings:
            found.append(f"{name}: is wired to {source}, which is not there")
        elif siblings[source]["type"].partition(":")[0] != family:
            found.append(f"{name}: is wired to {source}, which is not a {family}")
    if node["dock"] and node["dock"] not in siblings:
        found.append(f"{name}: is docked to {node['dock']}, which is not there")
    for reference in REFERENCES:
        target = node["settings"].get(reference, ["", ""])[0]
        if target and target not in siblings:
            found.append(f"{name}: {reference} names {target}, which is not there")
    text = node["text"]
    if kind in OWN_SCRIPT and not text:
        found.append(f"{name}: runs a script and has none")
    if text and (kind in OWN_SCRIPT or node["settings"].get("language", ["", ""])[0] == "python"):
        try:
            ast.parse(text, feature_version=PYTHON)
        except SyntaxError as error:
            found.append(f"{name}: its script is not Python 3.11: {error.msg} in line {error.lineno}")
    elif text and text.startswith("{"):
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            found.append(f"{name}: its text is not JSON: {error}")
    return found


def _extension(graph: dict[str, Any]) -> list[str]:
    """The DAT of the extension must exist and define the class that the parameter names."""
    value = graph["settings"].get("ext0object", ["", ""])[0]
    if not value:
        return []
    match = re.fullmatch(r"op\('\./(\w+)'\)\.module\.(\w+)\(me\)", value)
    if match is None:
        return [f"{graph['name']}: the extension {value!r} is not of the form op('./DAT').module.CLASS(me)"]
    dat, class_name = match.groups()
    node = graph["nodes"].get(dat)
    if node is None or f"class {class_name}" not in (node["text"] or ""):
        return [f"{graph['name']}: there is no class {class_name} in a DAT {dat}"]
    return []


def _connectors(folder: Path, tree: Tree) -> list[str]:
    """Every In operator must be listed in `NAME.network`, which maps the component's inputs."""
    graph = tree.graph
    root = folder if folder.name.endswith(".tox.dir") else folder / f"{graph['name']}.tox.dir"
    path = root / f"{graph['name']}.network"
    listed = path.read_text(encoding="utf-8") if path.is_file() else ""
    ins = [name for name, node in graph["nodes"].items() if node["type"].endswith(":in")]
    return [f"{name}: is not listed in {path.name}" for name in ins if f"\t{name}\n" not in listed]


def _cycles(nodes: dict[str, Any]) -> list[str]:
    """Wires must not form a cycle."""
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> list[str]:
        if name in above:
            return [f"{name}: its wires run in a circle: {' <- '.join((*above, name))}"]
        if name in done or name not in nodes:
            return []
        found = [line for source in nodes[name]["inputs"] for line in visit(source, (*above, name))]
        done.add(name)
        return found

    return [line for name in sorted(nodes) for line in visit(name, ())]


def main(arguments: list[str]) -> int:
    """Check one folder. Returns the exit code: 0 sound, 1 faults found, 2 wrong arguments."""
    if len(arguments) != 1:
        print("usage: python -m td_components.check DIR   (the folder that holds NAME.tox.dir and NAME.tox.toc)")
        return 2
    found = faults(Path(arguments[0]))
    for line in found:
        print(line)
    if not found:
        nodes = read(Path(arguments[0])).graph["nodes"]
        print(f"{arguments[0]}: sound ({len(nodes)} operators). Not opened in TouchDesigner by this check.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
