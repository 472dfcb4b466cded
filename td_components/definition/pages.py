"""The custom parameters of the Tidecast component, generated from the table of controls.

`controls.json` is that table as plain data, written by `tidecast td generate`. Parameters that do not come from the
table (TouchDesigner's beat, connection, engine process, presets) are in `fixed_pages.py`.
"""

from __future__ import annotations

from typing import Any

from td_components.definition import fixed_pages
from td_components.definition.spec import Parameter, Style

PAGES = (
    *("Stream", "Prompts", "Beat", "Audio", "Cues", "Modulation", "Mask", "LoRA"),
    *("Connection", "Engine", "Health", "Callbacks", "About"),
)

PAGE_OF_GROUP = {name: name for name in ("Prompts", "Audio", "Cues", "Modulation", "Mask", "LoRA")} | {"Tempo": "Beat"}
"""Groups of the table that have a page other than Stream."""

LINK_COMMANDS = {"resend": "Fetch", "inputs": "Listinputs"}
"""Commands that are on the page Connection, with the names of their pulses."""

HIDDEN_COMMANDS = {
    "prompt": "The slots of the page Prompts do the same.",
    "tempo_beat": "A program that keeps the time sends it.",
    "tempo_phase": "A program that keeps the time sends it.",
    "mod_set": "The text of the modulator does the same.",
    "midi_learn": "MIDI is learnt where the controller is plugged in.",
    "subscribe": "The component sends it automatically.",
    "ping": "The component sends it automatically.",
    "quit": "Stop sends it.",
}
"""Commands without a parameter, and why. All others are pulses on the page of their group."""

STYLES = {
    "float": Style.FLOAT,
    "int": Style.INT,
    "bool": Style.TOGGLE,
    "text": Style.STR,
    "choice": Style.MENU,
}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "i": {"style": Style.INT, "default": 1, "low": 1, "high": 64},
    "f": {"style": Style.FLOAT, "default": 0.0, "low": 0.0, "high": 60.0},
    "s": {"style": Style.STR, "default": ""},
    "*": {"style": Style.STR, "default": ""},
}
"""Style and range of the parameter for a command's argument, by the argument's OSC type tag."""

EXTRA_HELP = {
    "input": " Empty: the picture that is wired into this component.",
    "bypass": " The component also switches to its own input at once.",
}
"""Text that the component adds to the help of a control."""


def control_name(name: str) -> str:
    """The parameter's name of the control `name`: prompt_1 becomes Prompt1."""
    return name.replace("_", "").capitalize()


def reading_name(name: str) -> str:
    """The parameter's name of the reading `name`: fps_out becomes Statusfpsout."""
    return "Status" + name.replace("_", "")


def parameters(table: dict[str, Any], version: str) -> tuple[Parameter, ...]:
    """Every custom parameter of the component, page by page.

    Args:
        table: the contents of `controls.json`.
        version: version of Tidecast that the page About shows.
    """
    by_page: dict[str, list[Parameter]] = {page: [] for page in PAGES}
    for parameter in (
        *fixed_pages.beat(),
        *_controls(table),
        *_commands(table),
        *fixed_pages.presets(),
        *fixed_pages.connection(),
        *fixed_pages.engine(),
        *_health(table),
        *fixed_pages.callbacks(),
        *fixed_pages.about(version),
    ):
        by_page[parameter.page].append(parameter)
    return tuple(p for page in PAGES for p in by_page[page])


def _controls(table: dict[str, Any]) -> list[Parameter]:
    rows: list[Parameter] = []
    group = None
    for control in table["controls"]:
        unit = f" ({control['unit']})" if control["unit"] else ""
        page = PAGE_OF_GROUP.get(control["group"], "Stream")
        rows.append(
            Parameter(
                name=control_name(control["name"]),
                label=control["label"] + unit,
                page=page,
                style=STYLES[control["kind"]],
                default=control["default"],
                low=control["low"],
                high=control["high"],
                menu=tuple((word, word.capitalize()) for word in control["choices"]),
                help=_help(control, EXTRA_HELP.get(control["name"], "")),
                section=control["group"] != group and any(r.page == page for r in (*fixed_pages.beat(), *rows)),
            )
        )
        group = control["group"]
    return rows


def _commands(table: dict[str, Any]) -> list[Parameter]:
    rows: list[Parameter] = []
    asked: set[str] = set()
    for command in table["commands"]:
        if command["name"] in HIDDEN_COMMANDS or command["name"] in LINK_COMMANDS:
            continue
        page = PAGE_OF_GROUP.get(command["group"], "Stream")
        first = not any(r.page == page for r in rows) or (bool(command["arguments"]) and not asked)
        for argument, tag, _required in command["arguments"]:
            name = argument_name(command["group"], argument)
            if name in asked:
                continue
            asked.add(name)
            rows.append(
                Parameter(
                    name=name,
                    label=f"{command['group'].removesuffix('s')} {argument}",
                    page=page,
                    **ARGUMENTS[tag],
                    help=f"{argument.capitalize()} that the pulses below send.",
                    section=first,
                )
            )
            first = False
        rows.append(
            Parameter(
                name=control_name(command["name"]),
                label=f"{command['label']} {command['group'].removesuffix('s').lower()}"
                if command["arguments"]
                else command["label"],
                page=page,
                style=Style.PULSE,
                default=0,
                help=_help(command),
                section=first,
            )
        )
    return rows


def argument_name(group: str, argument: str) -> str:
    """The parameter that holds an argument of the commands of a group: Snapshots, number: Snapshotnumber."""
    return control_name(group.removesuffix("s") + argument)


def _help(row: dict[str, Any], extra: str = "") -> str:
    return f"{row['help']}{extra} OSC: /tidecast{row['address']}"


def _health(table: dict[str, Any]) -> list[Parameter]:
    page = "Health"
    rows = [
        Parameter(
            "Online",
            "Online",
            page,
            Style.TOGGLE,
            False,
            read_only=True,
            help="Whether Tidecast answers. If it does not, the input is passed through.",
        ),
        Parameter(
            "Lasterror",
            "Last Error",
            page,
            Style.STR,
            "",
            read_only=True,
            help="The latest error, with what to do about it.",
        ),
    ]
    styles = {"float": Style.FLOAT, "int": Style.INT, "text": Style.STR}
    for reading in table["telemetry"]:
        unit = f" ({reading['unit']})" if reading["unit"] else ""
        number = reading["kind"] != "text"
        rows.append(
            Parameter(
                name=reading_name(reading["name"]),
                label=reading["name"].replace("_", " ").capitalize() + unit,
                page=page,
                style=styles[reading["kind"]],
                default=0 if number else "",
                low=0 if number else None,
                high=1 if number else None,
                help=_help(reading),
                section=reading is table["telemetry"][0],
                read_only=True,
            )
        )
    rows += [
        Parameter(
            "Selftest",
            "Selftest",
            page,
            Style.PULSE,
            0,
            section=True,
            help="Check every operator and parameter of this component by name, and write a report to "
            "the DAT selftest_report and to a file.",
        ),
        Parameter(
            "Selftestresult",
            "Result",
            page,
            Style.STR,
            "",
            read_only=True,
            help="Result of the latest selftest, and the path of its report.",
        ),
    ]
    return rows
