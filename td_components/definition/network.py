"""The operators of the Tidecast component and the wires between them.

    in1 -> fit -+-> ndi_out, spout_out            the picture goes to Tidecast
                +-> switch <- ndi_in, spout_in    and comes back; without Tidecast the input passes through
                       +-> out1

`osc_out` and `osc_in` talk to Tidecast, `parameters` and `frames` call the extension, `readings` becomes the
second output (a CHOP) and `log` the third (a DAT). `beat` tells TouchDesigner's own beat, if it is to be followed. The
scripts are the files of the folder `scripts`.
"""

from __future__ import annotations

import json
from typing import Any

from td_components.definition import pages
from td_components.definition.spec import HERE, Component, Names, Node, Parameter, Setting, load_names

NAME = "Tidecast"

SCRIPTS = HERE / "scripts"

ONLINE = "parent().par.Online.eval() and not parent().par.Bypass.eval()"
"""Expression that is true while the restyled picture is shown."""


def component(table: dict[str, Any], version: str) -> Component:
    """The whole component.

    Args:
        table: the contents of `controls.json`.
        version: version of Tidecast.
    """
    parameters = pages.parameters(table, version)
    settings = (
        _constant("parentshortcut", NAME),
        _constant("ext0object", "op('./TidecastExt').module.TidecastExt(me)"),
        _constant("ext0name", "TidecastExt"),
        _constant("ext0promote", "on"),
    )
    nodes = (*_picture(), *_osc(), *_outputs(), *_scripts())
    names = load_names()
    manifest = _manifest(table, version, parameters, settings, nodes, names)
    return Component(
        name=NAME,
        pages=pages.PAGES,
        parameters=parameters,
        settings=settings,
        nodes=(*nodes, _text_node("manifest", 900, -400, manifest)),
        comment="Restyles the picture that is wired into it. Press Start on the page Engine.",
    )


def _constant(name: str, value: str | int) -> Setting:
    return Setting(name, value=str(value))


def _expression(name: str, expression: str, value: str | int = "") -> Setting:
    return Setting(name, value=str(value), expression=expression)


def _picture() -> tuple[Node, ...]:
    return (
        Node("in1", "TOP:in", -400, 400, (_constant("label", "picture"),)),
        Node(
            "fit",
            "TOP:fit",
            -200,
            400,
            (
                _expression(
                    "fit",
                    "{'cover': 'fitoutside', 'contain': 'fitbest', 'stretch': 'fill'}[parent().par.Fit.eval()]",
                    "fitoutside",
                ),
                _constant("outputresolution", "custom"),
                _expression("resolutionw", "parent().par.Width.eval()", 512),
                _expression("resolutionh", "parent().par.Height.eval()", 512),
            ),
            ("in1",),
        ),
        Node(
            "ndi_out",
            "TOP:ndiout",
            100,
            600,
            (
                _expression("active", "parent().par.Transport.eval() == 'ndi'", "on"),
                _expression("name", "parent().par.Sendname.eval()", "Tidecast In"),
                _expression("includealpha", "parent().par.Outputalpha.eval() != 'off'", "off"),
                _constant("lowperformancebehavior", "skipframes"),
            ),
            ("fit",),
        ),
        Node(
            "spout_out",
            "TOP:syphonspoutout",
            100,
            480,
            (
                _expression("active", "parent().par.Transport.eval() == 'spout'", "off"),
                _expression("sendername", "parent().par.Sendname.eval()", "Tidecast In"),
            ),
            ("fit",),
        ),
        Node(
            "ndi_in",
            "TOP:ndiin",
            -200,
            250,
            (
                _expression("active", "parent().par.Transport.eval() == 'ndi'", "on"),
                _expression("name", "parent().par.Source.eval()"),
                _expression("extraips", "parent().par.Extraips.eval()"),
            ),
        ),
        Node(
            "spout_in",
            "TOP:syphonspoutin",
            -200,
            130,
            (_expression("sendername", "parent().par.Receivename.eval()", "Tidecast"),),
        ),
        Node(
            "switch",
            "TOP:switch",
            100,
            300,
            (_expression("index", f"(1 + (parent().par.Transport.eval() == 'spout')) if {ONLINE} else 0", 0),),
            ("fit", "ndi_in", "spout_in"),
        ),
        Node("out1", "TOP:out", 300, 300, (_constant("label", "restyled"), _constant("connectorder", 0)), ("switch",)),
        Node("ndi_sources", "DAT:ndi", -400, 0),
    )


def _osc() -> tuple[Node, ...]:
    active = _expression("active", "parent().par.Active.eval()", "on")
    return (
        Node(
            "osc_out",
            "DAT:oscout",
            -400,
            -200,
            (
                active,
                _expression("address", "parent().par.Address.eval()", "127.0.0.1"),
                _expression("port", "parent().par.Port.eval()", 9000),
            ),
        ),
        Node(
            "osc_in",
            "DAT:oscin",
            -200,
            -200,
            (
                active,
                _expression("port", "parent().par.Listenport.eval()", 9010),
                _constant("splitbundle", "on"),
                _constant("splitmessage", "on"),
                _constant("callbacks", "osc_callbacks"),
                _constant("maxlines", 50),
            ),
        ),
        _text_node("osc_callbacks", -200, -380, _script("osc_callbacks"), dock="osc_in"),
        Node(
            "parameters",
            "DAT:parexec",
            100,
            -200,
            (
                _constant("op", ".."),
                _constant("pars", "*"),
                _constant("valuechange", "on"),
                _constant("onpulse", "on"),
                _constant("custom", "on"),
                _constant("builtin", "off"),
                _constant("language", "python"),
            ),
            text=_script("parameter_callbacks"),
        ),
        Node(
            "frames",
            "DAT:execute",
            300,
            -200,
            (
                _constant("start", "on"),
                _constant("exit", "on"),
                _constant("framestart", "on"),
                _constant("language", "python"),
            ),
            text=_script("frame_callbacks"),
        ),
    )


def _outputs() -> tuple[Node, ...]:
    return (
        Node("readings", "DAT:table", 500, 300),
        Node(
            "telemetry",
            "CHOP:datto",
            700,
            300,
            (
                _constant("dat", "readings"),
                _constant("output", "chanperrow"),
                _constant("firstrow", "values"),
                _constant("firstcolumn", "names"),
            ),
        ),
        Node(
            "out2",
            "CHOP:out",
            900,
            300,
            (_constant("label", "telemetry"), _constant("connectorder", 1)),
            ("telemetry",),
        ),
        Node("log", "DAT:table", 500, 100),
        Node("out3", "DAT:out", 700, 100, (_constant("label", "log"), _constant("connectorder", 2)), ("log",)),
        _text_node("selftest_report", 900, 100, ""),
        Node(
            "beat",
            "CHOP:beat",
            -400,
            -380,
            (
                _constant("playmode", "local"),  # goes on where the timeline begins again
                _constant("period", 1),
                _constant("ramp", "off"),
                _constant("countramp", "on"),
                _constant("bpm", "on"),
            ),
        ),
    )


def _scripts() -> tuple[Node, ...]:
    names = ("TidecastExt", "link", "engine_process", "selftest", "callbacks")
    return tuple(
        _text_node(name, 500 + 200 * (i % 3), -200 - 200 * (i // 3), _script(name)) for i, name in enumerate(names)
    )


def _text_node(name: str, x: int, y: int, text: str, dock: str = "") -> Node:
    python = (_constant("language", "python"),) if text and not text.startswith("{") else ()
    return Node(name, "DAT:text", x, y, python, (), dock, text)


def _script(name: str) -> str:
    return (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")


def _manifest(
    table: dict[str, Any],
    version: str,
    parameters: tuple[Parameter, ...],
    settings: tuple[Setting, ...],
    nodes: tuple[Node, ...],
    names: Names,
) -> str:
    """The part of the table that the scripts need, and the names that the selftest checks, as JSON."""
    return (
        json.dumps(
            {
                "version": version,
                "controls": [
                    {
                        "par": pages.control_name(c["name"]),
                        "address": c["address"],
                        "kind": c["kind"],
                        "stored": c["stored"],
                    }
                    for c in table["controls"]
                ],
                "readings": [
                    {
                        "par": pages.reading_name(r["name"]),
                        "name": r["name"],
                        "address": r["address"],
                        "kind": r["kind"],
                    }
                    for r in table["telemetry"]
                ],
                "pulses": {
                    pages.LINK_COMMANDS.get(c["name"], pages.control_name(c["name"])): {
                        "address": c["address"],
                        "arguments": [pages.argument_name(c["group"], a) for a, _tag, _needed in c["arguments"]],
                    }
                    for c in table["commands"]
                    if c["name"] not in pages.HIDDEN_COMMANDS
                },
                "parameters": [p.name for p in parameters],
                "component": [{"name": s.name} for s in settings],
                "operators": {
                    n.name: {
                        "class": names.classes[n.type],
                        "inputs": len(n.inputs),
                        "settings": [
                            {"name": s.name, "word": s.value if s.name in names.menus[n.type] else ""}
                            for s in n.settings
                        ],
                    }
                    for n in nodes
                },
            },
            indent=1,
        )
        + "\n"
    )
