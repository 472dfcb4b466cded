"""Writes a component as the text tree that TouchDesigner's `toecollapse` turns into a `.tox`.

`README.md` documents the format; `grammar.py` reads it back. Lines end with LF and have a fixed order, so the same
component always gives the same bytes.
"""

from __future__ import annotations

import struct

from td_components.definition.spec import BUILD, Component, Node, Parameter, Setting, Style

STAMP = "Wed Jul  3 09:32:19 2024"
"""Time in `.build`; fixed, so that the tree changes only when the component does."""

CONSTANT, EXPRESSION, EXPRESSION_TEXT, CUSTOM, READ_ONLY, SINCE_2023 = 0, 1, 0x10, 0x40, 0x100, 0x4000000
"""Bits of the flags in a `.parm` line."""

WORD, SUFFIX_NUMBERED, SIZE_ONE = 0x2E000000 | 0x100000, 1 << 12, 1 << 8
SECTION, HELP = 0x80000000, 0x40000
"""Bits of the leading word in a `.cparm` line."""

TEXTUAL = (Style.STR, Style.FILE, Style.FOLDER)
FREE, CLAMPED = 1, 3
MENU_LIST = 4097

COLOURS = {"TOP": "0.35 0.45 0.65", "DAT": "0.55 0.55 0.55", "CHOP": "0.4 0.55 0.4", "COMP": "0.2 0.5 0.55"}


def write(component: Component) -> dict[str, bytes]:
    """Every file of the tree: path -> contents.

    The paths begin with `NAME.tox.toc` or `NAME.tox.dir/`, in the order of the table of contents.
    """
    name = component.name
    files = {
        ".build": f"version 099\nbuild {BUILD}\ntime {STAMP}\nosname Windows\nosversion 10\n".encode(),
        f"{name}.n": _component_n(component),
        f"{name}.cparm": _cparm(component),
        f"{name}.parm": _parm([*component.settings], component.parameters),
        f"{name}.network": _network(component.nodes),
    }
    for node in sorted(component.nodes, key=lambda n: (len(n.name), n.name)):
        base = f"{name}/{node.name}"
        files[f"{base}.n"] = _node_n(node)
        if node.settings:
            files[f"{base}.parm"] = _parm([*node.settings], ())
        if node.text is not None:
            files[f"{base}.text"] = text_file(node.text)
    contents = "# 4 0 0 0 1\n" + "".join(f"{path}\n" for path in files)
    return {
        f"{name}.tox.toc": contents.encode(),
        **{f"{name}.tox.dir/{path}": data for path, data in files.items()},
    }


def quote(value: str) -> str:
    """`value` as one token: quoted when it is empty or holds a space, a quote or a backslash."""
    if value and not any(sign in value for sign in ' \t\n"\\'):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def text_file(text: str) -> bytes:
    """The `.text` file of a DAT: a header of six 32-bit words, then the text in UTF-8."""
    body = text.encode("utf-8")
    return b"2\n*" + struct.pack(">6I", 1, 1, 1, 1, 2, len(body)) + body


def word(parameter: Parameter) -> int:
    """The leading word of a `.cparm` line, as a signed 32-bit number."""
    value = WORD | SUFFIX_NUMBERED | SIZE_ONE | int(parameter.style) | HELP
    if parameter.section:
        value |= SECTION
    return value - (1 << 32) if value & 0x80000000 else value


def _component_n(component: Component) -> bytes:
    lines = ["COMP:base", "v 0 0 0.8"]
    if component.comment:
        lines.append(f"comment {quote(component.comment)}")
    lines += [
        "tile 0 0 160 130",
        "flags =  viewer 1 parlanguage 0",
        f"color {COLOURS['COMP']} ",
        "end",
    ]
    return _lines(lines)


def _node_n(node: Node) -> bytes:
    width, height = node.size
    lines = [node.type, f"tile {node.x} {node.y} {width} {height}", "flags =  viewer 1 parlanguage 0"]
    if node.inputs:
        lines += ["inputs", "{", *(f"{i} \t{name}" for i, name in enumerate(node.inputs)), "}"]
    lines.append(f"color {COLOURS[node.family]} ")
    if node.dock:
        lines.append(f"dock {node.dock}")
    lines.append("end")
    return _lines(lines)


def _network(nodes: tuple[Node, ...]) -> bytes:
    """The In operators that receive the wires into the component."""
    lines = ["1", "compinputs", "{"]
    for i, node in enumerate(n for n in nodes if n.type.endswith(":in")):
        lines += [f'{i} \t""', f"\t{node.name}", f"\t{node.family}"]
    return _lines([*lines, "}", "end"])


def _parm(settings: list[Setting], parameters: tuple[Parameter, ...]) -> bytes:
    lines = ["?"]
    for setting in settings:
        flags = SINCE_2023
        line = f"{setting.name} {flags} {quote(setting.value)}"
        if setting.expression:
            flags |= EXPRESSION | EXPRESSION_TEXT
            line = f"{setting.name} {flags} {quote(setting.value)} {quote(setting.expression)}"
        lines.append(line)
    for parameter in parameters:
        if parameter.style is Style.PULSE:
            continue
        flags = SINCE_2023 | CUSTOM | (READ_ONLY if parameter.read_only else 0)
        lines.append(f"{parameter.name} {flags} {quote(value_text(parameter))}")
    return _lines([*lines, "?"])


def value_text(parameter: Parameter) -> str:
    """The default of a custom parameter as a `.parm` line holds it."""
    if parameter.style is Style.TOGGLE:
        return "on" if parameter.default else "off"
    return number(parameter.default) if isinstance(parameter.default, (int, float)) else parameter.default


def number(value: float) -> str:
    """A number as text, with as few digits as it needs."""
    return str(int(value)) if float(value) == int(value) else repr(float(value))


def _cparm(component: Component) -> bytes:
    pages = " ".join(quote(page) for page in component.pages)
    lines = ["?", f"pages {len(component.pages)} {pages}"]
    orders = dict.fromkeys(component.pages, 0)
    for parameter in component.parameters:
        lines.append(_cparm_line(parameter, orders[parameter.page]))
        orders[parameter.page] += 1
    return _lines([*lines, "?"])


def _cparm_line(p: Parameter, order: int) -> str:
    bounded = p.low is not None and not p.read_only
    low, high = (0.0 if p.low is None else p.low), (1.0 if p.high is None else p.high)
    flag = CLAMPED if bounded else FREE
    limits = f"{flag} {number(low)} {number(low)} {flag} {number(high)} {number(high)}"
    numeric = isinstance(p.default, (int, float))
    text = p.default if p.style in TEXTUAL else ""
    default = f"2 {number(p.default) if numeric else 0} {quote(text)} {quote('')}"
    menu = ""
    if p.menu:
        choices = " ".join(f"{quote(name)} {quote(label)}" for name, label in p.menu)
        menu = f"{MENU_LIST} {len(p.menu)} {choices} "
    return f"{word(p)} {p.name} {quote(p.label)} 1 {limits} {default} {quote(p.page)} {menu}{order} 1 {quote(p.help)}"


def _lines(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("utf-8")
