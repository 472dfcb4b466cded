"""The custom parameters of the Tidecast component, generated from the table of controls.

`controls.json` is that table as plain data, written by `tidecast td generate`; nothing of the engine is
imported here. What stands on the pages beside it (connection, engine process, presets) is written out below.
"""

from __future__ import annotations

from typing import Any

from td_components.definition.spec import Parameter, Style

PAGES = ("Stream", "Prompts", "Connection", "Engine", "Health", "Callbacks", "About")

PAGE_OF_GROUP = {"Prompts": "Prompts"}
"""Groups of the table that do not stand on the page Stream."""

LINK_COMMANDS = {"resend": "Fetch", "inputs": "Listinputs"}
"""Commands that stand on the page Connection, with the name of their pulse."""

HIDDEN_COMMANDS = {
    "prompt": "The slots of the page Prompts say the same.",
    "midi_learn": "Is done where the MIDI controller is plugged in.",
    "subscribe": "The component sends it by itself.",
    "ping": "The component sends it by itself.",
    "quit": "Stop sends it.",
}
"""Commands that have no parameter, and why. All others are pulses on the page of their group."""

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
}
"""How the parameter of a command's argument looks, by the argument's OSC type tag."""

EXTRA_HELP = {
    "input": " Empty: the picture that is wired into this component.",
    "bypass": " The component also switches to its own input at once.",
}
"""What the component adds to the help of a control."""


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
        *_controls(table),
        *_commands(table),
        *_presets(),
        *_connection(),
        *_engine(),
        *_health(table),
        *_callbacks(),
        *_about(version),
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
                section=control["group"] != group and any(r.page == page for r in rows),
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
                    help=f"{argument.capitalize()} that the pulses below send along.",
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


def _presets() -> list[Parameter]:
    return [
        Parameter(
            "Preset",
            "Preset",
            "Stream",
            Style.INT,
            1,
            low=1,
            high=64,
            section=True,
            help="Number of a preset. Presets keep the parameters of the pages Stream and Prompts in this "
            "component's storage, and so in the .toe file.",
        ),
        Parameter(
            "Storepreset",
            "Store Preset",
            "Stream",
            Style.PULSE,
            0,
            help="Keep the parameters of the pages Stream and Prompts under this number.",
        ),
        Parameter(
            "Recallpreset",
            "Recall Preset",
            "Stream",
            Style.PULSE,
            0,
            help="Set the parameters that were kept under this number.",
        ),
    ]


def _connection() -> list[Parameter]:
    page = "Connection"
    return [
        Parameter(
            "Active",
            "Active",
            page,
            Style.TOGGLE,
            True,
            help="Talk to Tidecast. A Tidecast that already runs, here or on another machine, is found "
            "as soon as it answers at the address below.",
        ),
        Parameter(
            "Address",
            "Address",
            page,
            Style.STR,
            "127.0.0.1",
            help="Machine on which Tidecast runs. It must listen there: tidecast run --osc-host 0.0.0.0",
        ),
        Parameter(
            "Port", "OSC Port", page, Style.INT, 9000, low=1, high=65535, help="UDP port at which Tidecast listens."
        ),
        Parameter(
            "Listenport",
            "Listen Port",
            page,
            Style.INT,
            9010,
            low=1,
            high=65535,
            help="UDP port at which this component hears the answers. Two components need two ports.",
        ),
        Parameter(
            "Onconnect",
            "On Connect",
            page,
            Style.MENU,
            "send",
            menu=(("send", "Send my values"), ("fetch", "Take its values")),
            help="Whose values count when Tidecast becomes ready.",
        ),
        Parameter(
            "Transport",
            "Transport",
            page,
            Style.MENU,
            "ndi",
            section=True,
            menu=(("ndi", "NDI"), ("spout", "Spout / Syphon")),
            help="How pictures travel. Spout (Windows) and Syphon (macOS) need both on one machine.",
        ),
        Parameter(
            "Sendname",
            "Send Name",
            page,
            Style.STR,
            "Tidecast In",
            help="Name under which this component sends its input. Unique on this machine.",
        ),
        Parameter("Receivename", "Receive Name", page, Style.STR, "Tidecast", help="Name of the output of Tidecast."),
        Parameter(
            "Source",
            "NDI Source",
            page,
            Style.STR,
            "",
            read_only=True,
            help="The full NDI name that was found for Receive Name.",
        ),
        Parameter(
            "Extraips",
            "Extra IPs",
            page,
            Style.STR,
            "",
            help="Addresses of machines whose NDI sources are not found by themselves.",
        ),
        Parameter(
            "Width", "Width", page, Style.INT, 512, low=32, high=4096, help="Width at which the input is sent (pixels)."
        ),
        Parameter(
            "Height",
            "Height",
            page,
            Style.INT,
            512,
            low=32,
            high=4096,
            help="Height at which the input is sent (pixels).",
        ),
        Parameter(
            "Resend",
            "Send All",
            page,
            Style.PULSE,
            0,
            section=True,
            help="Send every parameter of the pages Stream and Prompts again.",
        ),
        Parameter("Fetch", "Fetch All", page, Style.PULSE, 0, help="Take every value from Tidecast."),
        Parameter(
            "Listinputs",
            "List Inputs",
            page,
            Style.PULSE,
            0,
            help="Write the sources that Tidecast can see into the log.",
        ),
    ]


def _engine() -> list[Parameter]:
    page = "Engine"
    return [
        Parameter(
            "Start",
            "Start",
            page,
            Style.PULSE,
            0,
            help="Start Tidecast on this machine as a process of its own. When one already answers, that one is used.",
        ),
        Parameter(
            "Stop",
            "Stop",
            page,
            Style.PULSE,
            0,
            help="End the Tidecast that this component started: asked by OSC first, then ended with all its processes.",
        ),
        Parameter(
            "Process",
            "Process",
            page,
            Style.STR,
            "stopped",
            read_only=True,
            help="What the process that this component started is doing.",
        ),
        Parameter(
            "Executable",
            "Executable",
            page,
            Style.FILE,
            "",
            section=True,
            help="The program tidecast, or the python of the environment in which it is installed. Empty: "
            "it is looked for.",
        ),
        Parameter(
            "Arguments",
            "Arguments",
            page,
            Style.STR,
            "run",
            help="Command and options, such as: run --config laptop. Input, output and OSC port are added "
            "by this component.",
        ),
        Parameter(
            "Autostart", "Start with Project", page, Style.TOGGLE, False, help="Start Tidecast when the project opens."
        ),
        Parameter(
            "Keeprunning",
            "Keep Running",
            page,
            Style.TOGGLE,
            False,
            help="Leave Tidecast running when TouchDesigner quits.",
        ),
        Parameter(
            "Logfile",
            "Log File",
            page,
            Style.STR,
            "",
            read_only=True,
            help="File to which the process writes; its lines also appear at the third output.",
        ),
    ]


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
            help="Whether Tidecast answers. When it does not, the input is passed through.",
        ),
        Parameter(
            "Lasterror",
            "Last Error",
            page,
            Style.STR,
            "",
            read_only=True,
            help="The newest error, with what to do about it.",
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
            help="Check every operator and parameter of this component by name, and write a report into "
            "the DAT selftest_report and into a file.",
        ),
        Parameter(
            "Selftestresult",
            "Result",
            page,
            Style.STR,
            "",
            read_only=True,
            help="What the newest selftest found, and where its report is.",
        ),
    ]
    return rows


def _callbacks() -> list[Parameter]:
    page = "Callbacks"
    return [
        Parameter(
            "Usecallbacks",
            "Use Callbacks",
            page,
            Style.TOGGLE,
            True,
            help="Call the functions onReady, onError and onPromptDone of the DAT below.",
        ),
        Parameter(
            "Callbackdat",
            "Callback DAT",
            page,
            Style.STR,
            "callbacks",
            help="Path of the DAT with your functions, seen from inside this component; an absolute path "
            "survives an update of the component.",
        ),
    ]


def _about(version: str) -> list[Parameter]:
    page = "About"
    return [
        Parameter(
            "Version",
            "Version",
            page,
            Style.STR,
            version,
            read_only=True,
            help="Version of Tidecast from which this component was generated.",
        ),
        Parameter(
            "Verified",
            "Verified",
            page,
            Style.STR,
            "see VERIFIED.md",
            read_only=True,
            help="Which TouchDesigner builds a person has opened this component in stands in the file "
            "VERIFIED.md of Tidecast.",
        ),
    ]
