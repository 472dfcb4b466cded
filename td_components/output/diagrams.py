"""The pictures of the guides in `docs`: how programs are connected, the network, the pages, the layout.

The last three are drawn from the spec and the table, so that they never show a name that the component lacks.
"""

from __future__ import annotations

from typing import Any

from td_components.definition.spec import Component, Parameter, Style
from td_components.output import touchosc
from td_components.output.drawing import (
    CONTROL,
    EDGE,
    INK,
    PANEL,
    QUIET,
    Arrow,
    Box,
    Diagram,
    Machine,
    page,
    panel,
    svg,
    text,
)


def _tidecast(x: int, y: int, *lines: str) -> Box:
    return Box("tidecast", x, y, "Tidecast", lines)


SETUPS: dict[str, Diagram] = {
    "td-one-machine": Diagram(
        "TouchDesigner and Tidecast on one machine",
        910,
        280,
        (
            Box(
                "td",
                40,
                60,
                "TouchDesigner",
                (
                    "your TOP → `Tidecast` → your show",
                    "Transport: NDI, or",
                    "Spout (Windows), Syphon (macOS)",
                    "OSC in: UDP 9010",
                ),
                290,
            ),
            _tidecast(
                620,
                60,
                "Start on the page Engine,",
                "or a terminal: `tidecast run`",
                "OSC in: UDP 9000",
                "page: http://127.0.0.1:9001",
            ),
        ),
        (
            Arrow("td", "tidecast", "`Tidecast In`", shift=-38),
            Arrow("tidecast", "td", "`Tidecast`", shift=-6),
            Arrow("td", "tidecast", "UDP 9000", CONTROL, shift=26),
            Arrow("tidecast", "td", "UDP 9010", CONTROL, shift=58),
        ),
        (Machine(20, 20, 870, 200, "one computer"),),
    ),
    "td-two-machines": Diagram(
        "TouchDesigner on one machine, Tidecast on another",
        1000,
        280,
        (
            Box(
                "td",
                50,
                70,
                "TouchDesigner",
                ("Address: `192.168.1.20`", "Transport: NDI", "Extra IPs: `192.168.1.20`", "OSC in: UDP 9010"),
                280,
            ),
            Box(
                "tidecast",
                670,
                70,
                "Tidecast",
                (
                    "`tidecast run --osc-host 0.0.0.0 \\`",
                    "`  --osc-allow 192.168.1.10 \\`",
                    "`  --extra-ip 192.168.1.10`",
                    "out: NDI `Tidecast`",
                ),
                280,
            ),
        ),
        (
            Arrow("td", "tidecast", "NDI `HOST (Tidecast In)`", shift=-34),
            Arrow("tidecast", "td", "NDI `HOST (Tidecast)`", shift=-2),
            Arrow("td", "tidecast", "UDP 9000", CONTROL, shift=30),
            Arrow("tidecast", "td", "UDP 9010", CONTROL, shift=62),
        ),
        (
            Machine(20, 20, 340, 205, "media server, 192.168.1.10"),
            Machine(640, 20, 340, 205, "GPU machine, 192.168.1.20"),
        ),
    ),
    "obs": Diagram(
        "OBS by NDI: as the source and as the stage",
        1180,
        210,
        (
            Box("in", 20, 40, "OBS (DistroAV)", ("Tools → DistroAV NDI Settings", "Main Output name: `OBS`")),
            _tidecast(470, 40, "`tidecast run --input ndi:OBS`", "out: `Tidecast`"),
            Box("out", 910, 40, "OBS, the same or another", ("Sources → + → NDI Source", "`HOST (Tidecast)`")),
        ),
        (Arrow("in", "tidecast", "NDI `OBS`"), Arrow("tidecast", "out", "NDI `Tidecast`")),
    ),
    "resolume": Diagram(
        "Resolume Arena: picture out, picture in, dashboard as control desk",
        1040,
        260,
        (
            Box(
                "resolume",
                40,
                40,
                "Resolume Arena",
                (
                    "Output → Composition output sharing:",
                    "NDI, or Spout / Syphon",
                    "Sources → NDI: `Tidecast`",
                    "Preferences → OSC → OSC Output: 7001",
                ),
                310,
            ),
            Box(
                "tidecast",
                690,
                40,
                "Tidecast",
                ("`tidecast run \\`", '`  --input "ndi:Arena" \\`', "`  --compat resolume`", "listens at UDP 7001 too"),
                300,
            ),
        ),
        (
            Arrow("resolume", "tidecast", "NDI / Spout `Arena`", shift=-34),
            Arrow("tidecast", "resolume", "NDI / Spout `Tidecast`", shift=2),
            Arrow("resolume", "tidecast", "UDP 7001: dashboard 1 to 8", CONTROL, shift=38),
        ),
    ),
    "remote": Diagram(
        "Controllers: every one of them at once",
        1110,
        500,
        (
            Box(
                "touchosc",
                30,
                40,
                "TouchOSC",
                ("layout `Tidecast.tosc`", "send port 9000", f"receive port {touchosc.LISTEN_PORT}"),
                260,
            ),
            Box("chataigne", 30, 190, "Chataigne, ossia score", ("OSCQuery module", "port 9001"), 260),
            Box("midi", 30, 320, "MIDI controller", ("plugged into the machine", "of Tidecast"), 260),
            Box(
                "tidecast",
                420,
                160,
                "Tidecast",
                ("OSC in: UDP 9000", "OSCQuery: HTTP 9001", "`tidecast midi learn`"),
                250,
            ),
            Box("ableton", 800, 60, "Ableton Live", ("Max for Live: OSC Send", "host 127.0.0.1, port 9000"), 280),
            Box("qlab", 800, 240, "QLab", ("Network patch: UDP, port 9000", "`/tidecast/snapshot/recall 3 4.0`"), 280),
            Box("any", 800, 390, "any OSC program", ('`/tidecast/prompt "a forest"`',), 280),
        ),
        (
            Arrow("touchosc", "tidecast", "OSC, both ways", CONTROL),
            Arrow("chataigne", "tidecast", "OSCQuery", CONTROL),
            Arrow("midi", "tidecast", "MIDI", CONTROL),
            Arrow("ableton", "tidecast", "OSC", CONTROL),
            Arrow("qlab", "tidecast", "OSC", CONTROL),
            Arrow("any", "tidecast", "OSC", CONTROL),
        ),
    ),
}
"""Diagrams of how programs are connected, by the name of the picture."""

WIRE_COLOURS = {"TOP": "#6f86c8", "CHOP": "#74b06f", "DAT": "#b07ab5"}


def pictures(table: dict[str, Any], component: Component) -> dict[str, bytes]:
    """Every picture: file name -> SVG."""
    drawn = {f"{name}.svg": svg(diagram) for name, diagram in SETUPS.items()}
    drawn["network.svg"] = network(component)
    drawn["pages.svg"] = pages(component)
    drawn["touchosc.svg"] = layout(table)
    return {name: data.encode("utf-8") for name, data in drawn.items()}


def network(component: Component) -> str:
    """The operators and wires inside the component, at their places in the network editor."""
    nodes = {n.name: n for n in component.nodes}
    left = min(n.x for n in nodes.values()) - 30
    top = max(n.y + n.size[1] for n in nodes.values()) + 60
    w = max(n.x + n.size[0] for n in nodes.values()) - left + 30
    h = top - min(n.y for n in nodes.values()) + 20

    def place(name: str) -> tuple[int, int, int, int]:
        node = nodes[name]
        width, height = 150, 56
        return node.x - left, top - node.y - node.size[1], width, height

    body = text(30, 34, "Inside the component (generated from its spec)", 16)
    for node in nodes.values():
        x, y, width, height = place(node.name)
        for i, source in enumerate(node.inputs):
            sx, sy, sw, sh = place(source)
            y2 = y + height * (i + 1) / (len(node.inputs) + 1)
            body += (
                f"<path d='M{sx + sw} {sy + sh / 2:g} C{sx + sw + 30} {sy + sh / 2:g} {x - 30} {y2:g} {x} {y2:g}' "
                f"fill='none' stroke='{WIRE_COLOURS[node.family]}' stroke-width='2'/>"
            )
        for setting in node.settings:
            if setting.name in ("dat", "callbacks"):
                sx, sy, sw, sh = place(setting.value)
                across = f"M{sx + sw} {sy + sh / 2:g} L{x} {y + height / 2:g}"
                down = f"M{sx + sw / 2:g} {sy} L{x + width / 2:g} {y + height}"
                body += f"<path d='{across if sx < x else down}' stroke='{QUIET}' stroke-dasharray='4 4'/>"
    for node in nodes.values():
        x, y, width, height = place(node.name)
        body += panel(x, y, width, height, PANEL, WIRE_COLOURS[node.family])
        body += text(x + 10, y + 24, node.name, 14) + text(x + 10, y + 43, node.type.replace(":", " "), 11, QUIET)
    return page(w, h, "The network inside the Tidecast component", body)


def pages(component: Component) -> str:
    """The pages of custom parameters, one column each, similar to the parameter window."""
    columns = [[p for p in component.parameters if p.page == name] for name in component.pages]
    column, row = 232, 21
    h = 76 + row * max(len(c) for c in columns) + 20
    body = ""
    for i, (name, rows) in enumerate(zip(component.pages, columns, strict=True)):
        x = 16 + i * column
        body += panel(x, 16, column - 12, h - 32) + text(x + 12, 42, name, 16)
        for j, parameter in enumerate(rows):
            y = 70 + row * j
            if parameter.section:
                body += f"<path d='M{x + 8} {y - 15} h{column - 28}' stroke='{EDGE}'/>"
            body += text(x + 12, y, parameter.label[:22], 12, QUIET if parameter.read_only else INK)
            body += text(
                x + column - 22, y, _shown(parameter), 12, CONTROL if not parameter.read_only else QUIET, "end"
            )
    return page(16 + column * len(columns) + 4, h, "The pages of custom parameters", body)


def _shown(parameter: Parameter) -> str:
    if parameter.style is Style.PULSE:
        return "pulse"
    if parameter.style is Style.TOGGLE:
        return "on" if parameter.default else "off"
    value = parameter.default
    return (f"{value:g}" if isinstance(value, (int, float)) else str(value))[:13]


def layout(table: dict[str, Any]) -> str:
    """The TouchOSC layout, similar to the tablet's screen."""
    body = ""
    for w in touchosc.widgets(table):
        r, g, b, _a = (round(255 * c) for c in w.colour)
        if w.type == "LABEL":
            shown = w.text or (w.name if w.message else "")
            body += text(w.x + w.w / 2, w.y + w.h / 2 + 5, shown, min(w.size, 14), INK, "middle")
            continue
        body += panel(w.x, w.y, w.w, w.h, f"rgb({r // 3},{g // 3},{b // 3})", f"rgb({r},{g},{b})")
        if w.type == "FADER":
            upright = w.kind == touchosc.NORTH
            x, y = w.x + 4, w.y + (w.h // 2 if upright else 4)
            width, height = (w.w - 8, w.h // 2 - 4) if upright else (w.w // 2, w.h - 8)
            body += f"<rect x='{x}' y='{y}' width='{width}' height='{height}' fill='rgb({r},{g},{b})'/>"
    return page(touchosc.WIDTH, touchosc.HEIGHT, "The TouchOSC layout", body)
