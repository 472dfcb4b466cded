"""The table of controls, commands and readings as Markdown; `python -m bridge.table` prints it.

`docs/controls.md` holds this output between two markers; a test fails when it is out of date.
"""

from __future__ import annotations

from bridge.control.table import ControlTable
from engine.control import PREFIX, Command, Control, Kind

BEGIN = "<!-- controls:begin -->"
END = "<!-- controls:end -->"
"""The lines of `docs/controls.md` between which the output of `markdown` is inserted."""

_TAGS = {Kind.FLOAT: "f", Kind.INT: "i", Kind.BOOL: "bool", Kind.TEXT: "s", Kind.CHOICE: "s"}


def markdown(table: ControlTable) -> str:
    """Three Markdown tables, with one line above each."""
    lines = [
        f"**Controls**, below `{PREFIX}`. Numeric ones have the twins `.../norm` (0 to 1) and `.../midi` (0 to 127).",
        "",
        "| address | type | range, default | what it does |",
        "|---|---|---|---|",
        *(_row(c.address, _TAGS[c.kind], range_text(c), c.help) for c in table.controls),
        "",
        "**Commands.** Done once when the message arrives; a button's release (0) does nothing.",
        "",
        "| address | arguments | what it does |",
        "|---|---|---|",
        *(_row(c.address, arguments_text(c), c.help) for c in table.commands),
        "",
        "**Telemetry**, to subscribers: ten times a second the state and what has changed, once a second everything; "
        f"errors come at `{PREFIX}/error` (address, reason).",
        "",
        "| address | type | unit | what it tells |",
        "|---|---|---|---|",
        *(_row(r.address, _TAGS[r.kind], r.unit, r.help) for r in table.readings),
    ]
    return "\n".join(lines) + "\n"


def range_text(control: Control) -> str:
    """Range and default of a control in words."""
    if control.kind is Kind.BOOL:
        return "on" if control.default else "off"
    if control.kind is Kind.TEXT:
        return ""
    if control.choices:
        return f"{', '.join(control.choices)}; {control.default}"
    unit = f" {control.unit}" if control.unit else ""
    return f"{_figure(control.low)}..{_figure(control.high)}{unit}, {_figure(control.default)}"


def arguments_text(command: Command) -> str:
    """The arguments of a command in words, optional ones in brackets."""
    words = (f"{name} {tag}".removesuffix(" *") for name, tag, _ in command.arguments)
    return ", ".join(w if a[2] else f"[{w}]" for w, a in zip(words, command.arguments, strict=True))


def _figure(number: float | None) -> str:
    return f"{number:.10g}"


def _row(address: str, *cells: str) -> str:
    return "| " + " | ".join([f"`{address}`", *(c.replace("|", "\\|") for c in cells)]) + " |"
