"""The TouchOSC layout `docs/Tidecast.tosc`, generated from the table of controls.

The format is that of TouchOSC since 2021: an XML tree (`lexml`) compressed with zlib. Faders use the `/norm` twins
(0 to 1), so the layout need not hold any ranges. Nobody has opened the file in TouchOSC yet.
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 1024, 768
LISTEN_PORT = 9020
"""UDP port at which TouchOSC must receive; the layout subscribes it."""

SNAPSHOTS = 8
"""Number of snapshots that have buttons."""

PLAYED = ("Prompts", "Stream", "Modulation", "Video", "LoRA")
"""Groups whose numbers have faders: what is played. What is set up before a show is on the page."""

SWITCHED = ("Panic", "Cues", "Video", "Recording")
"""Groups whose switches have buttons."""

PRESSED = ("reset", "anchor", "cue_go")
"""Commands that have buttons."""

CONNECTION_1 = "0000000001"
RECTANGLE = 1
MOMENTARY, TOGGLE = 0, 2
NORTH, EAST = 0, 1

FADER_COLOUR = (0.24, 0.62, 0.66, 1.0)
PANIC_COLOUR = (0.85, 0.30, 0.28, 1.0)
BUTTON_COLOUR = (0.55, 0.58, 0.62, 1.0)
INK = (0.92, 0.94, 0.95, 1.0)
GROUND = (0.07, 0.08, 0.09, 1.0)

SUBSCRIBE = f"""local due = 0
function update()
  local now = getMillis()
  if now >= due then
    due = now + 5000
    sendOSC('/tidecast/subscribe', {LISTEN_PORT})
  end
end
"""
"""Keeps the layout subscribed: Tidecast forgets a client that is silent for 30 seconds."""


@dataclass(frozen=True, slots=True)
class Message:
    """One OSC message of a control.

    Attributes:
        address: full address.
        constant: (conversion, value) to send instead of the control's value; None sends that value.
        value: name of the value that is sent and received: x or text.
        sends: whether the control sends; otherwise it only shows what it receives.
    """

    address: str
    constant: tuple[str, str] | None = None
    value: str = "x"
    sends: bool = True


@dataclass(frozen=True, slots=True)
class Widget:
    """One control of the layout.

    Attributes:
        name: unique name.
        type: FADER, BUTTON or LABEL.
        x, y, w, h: its rectangle in pixels.
        text: what a label shows.
        message: what it sends and receives.
        kind: MOMENTARY or TOGGLE for a button; for a fader its orientation.
        colour: red, green, blue, alpha from 0 to 1.
        steps: number of lines of a fader's grid.
        size: text size of a label.
    """

    name: str
    type: str
    x: int
    y: int
    w: int
    h: int
    text: str = ""
    message: Message | None = None
    kind: int = NORTH
    colour: tuple[float, float, float, float] = FADER_COLOUR
    steps: int = 11
    size: int = 14


def widgets(table: dict[str, Any]) -> list[Widget]:
    """The controls of the layout.

    Args:
        table: the contents of `controls.json`.
    """
    prefix = table["prefix"]
    controls = {c["name"]: c for c in table["controls"]}
    found = [_label("title", 16, 10, 200, 34, "Tidecast", size=26)]
    found += _status(table, prefix)
    numbers = [c for c in controls.values() if c["kind"] in ("float", "int") and c["group"] in PLAYED]
    numeric = [c for c in numbers if not c["name"].startswith("weight_")]
    width = (WIDTH - 32) // len(numeric)
    for i, control in enumerate(numeric):
        steps = int(control["high"] - control["low"]) + 1 if control["kind"] == "int" else 11
        found += _fader(control, prefix, 16 + i * width, 96, width - 12, 268, min(steps, 11))
    weights = [c for c in controls.values() if c["name"].startswith("weight_")]
    for i, control in enumerate(weights):
        number = control["name"].rsplit("_", 1)[1]
        y = 384 + 52 * i
        found.append(
            _label(f"prompt {number}", 16, y, 480, 44, "", Message(f"{prefix}/prompt/{number}", None, "text", False))
        )
        address = f"{prefix}{control['address']}/norm"
        found.append(Widget(control["name"], "FADER", 508, y, 236, 44, message=Message(address), kind=EAST))
    toggles = [c for c in controls.values() if c["kind"] == "bool" and c["group"] in SWITCHED]
    for i, control in enumerate(toggles):
        colour = PANIC_COLOUR if control["group"] == "Panic" else BUTTON_COLOUR
        x, y = 760 + 84 * (i % 3), 384 + 74 * (i // 3)
        found += _button(control["label"], f"{prefix}{control['address']}", x, y, 78, 66, None, TOGGLE, colour)
    for i, name in enumerate(PRESSED):
        command = next(c for c in table["commands"] if c["name"] == name)
        found += _button(
            command["label"],
            prefix + command["address"],
            760 + 84 * i,
            610,
            78,
            48,
            ("FLOAT", "1"),
            MOMENTARY,
            BUTTON_COLOUR,
        )
    for i in range(SNAPSHOTS):
        x, number = 16 + 124 * i, ("INTEGER", str(i + 1))
        for verb, y, h, colour in (("Recall", 668, 54, FADER_COLOUR), ("Save", 728, 32, BUTTON_COLOUR)):
            address = f"{prefix}/snapshot/{verb.lower()}"
            found += _button(f"{verb} {i + 1}", address, x, y, 118, h, number, MOMENTARY, colour)
    return found


def _status(table: dict[str, Any], prefix: str) -> list[Widget]:
    """Labels that show what Tidecast reports."""
    shown = (("state", 220, 150), ("fps_out", 380, 90), ("latency", 480, 90), ("prompt", 580, 428))
    addresses = {r["name"]: r["address"] for r in table["telemetry"]}
    found = []
    for name, x, w in shown:
        message = Message(prefix + addresses[name], None, "text", False)
        found.append(_label(f"{name} caption", x, 8, w, 16, name.replace("_", " "), size=11))
        found.append(_label(name, x, 26, w, 30, "", message))
    return found


def _label(
    name: str, x: int, y: int, w: int, h: int, text: str, message: Message | None = None, size: int = 14
) -> Widget:
    return Widget(name, "LABEL", x, y, w, h, text=text, message=message, colour=INK, size=size)


def _fader(control: dict[str, Any], prefix: str, x: int, y: int, w: int, h: int, steps: int) -> list[Widget]:
    message = Message(f"{prefix}{control['address']}/norm")
    return [
        _label(f"{control['name']} caption", x, y - 26, w, 22, control["label"], size=12),
        Widget(control["name"], "FADER", x, y, w, h, message=message, steps=steps),
    ]


def _button(
    text: str,
    address: str,
    x: int,
    y: int,
    w: int,
    h: int,
    constant: tuple[str, str] | None,
    kind: int,
    colour: tuple[float, float, float, float],
) -> list[Widget]:
    message = Message(address, constant)
    return [
        Widget(f"{text} button", "BUTTON", x, y, w, h, message=message, kind=kind, colour=colour),
        _label(f"{text} caption", x, y, w, h, text, size=12 if len(text) < 12 else 10),
    ]


def write(table: dict[str, Any]) -> bytes:
    """The `.tosc` file."""
    return zlib.compress(xml(table).encode("utf-8"), 9)


def xml(table: dict[str, Any]) -> str:
    """The layout as XML, before it is compressed."""
    children = "".join(_node(w) for w in widgets(table))
    properties = (
        _property("b", "background", "1")
        + _colour("color", GROUND)
        + _frame(0, 0, WIDTH, HEIGHT)
        + _property("b", "interactive", "0")
        + _property("s", "name", _cdata("Tidecast"))
        + _property("s", "script", _cdata(SUBSCRIBE))
        + _property("b", "visible", "1")
    )
    return (
        "<?xml version='1.0' encoding='UTF-8'?><lexml version='6'>"
        f"<node ID='{_id('root')}' type='GROUP'><includes></includes><properties>{properties}</properties>"
        f"<values>{_value('touch', 'false')}</values><children>{children}</children></node></lexml>"
    )


def _node(w: Widget) -> str:
    caption = w.type == "LABEL"
    properties = (
        _property("b", "background", "0" if caption else "1")
        + _colour("color", w.colour)
        + _property("f", "cornerRadius", "3")
        + _frame(w.x, w.y, w.w, w.h)
        + _property("b", "grabFocus", "0" if caption else "1")
        + _property("b", "interactive", "0" if caption else "1")
        + _property("s", "name", _cdata(w.name))
        + _property("b", "outline", "0" if caption else "1")
        + _property("i", "shape", str(RECTANGLE))
        + _property("b", "visible", "1")
    )
    values = _value("touch", "false")
    if caption:
        properties += (
            _property("i", "textAlignH", "2")
            + _property("i", "textAlignV", "2")
            + _property("b", "textClip", "1")
            + _colour("textColor", INK)
            + _property("i", "textSize", str(w.size))
        )
        values += _value("text", w.text)
    else:
        properties += (
            _property("i", "orientation", str(w.kind)) + _property("i", "gridSteps", str(w.steps))
            if w.type == "FADER"
            else _property("i", "buttonType", str(w.kind))
        )
        values += _value("x", "0")
    messages = f"<messages>{_osc(w.message)}</messages>" if w.message else ""
    return (
        f"<node ID='{_id(w.name)}' type='{w.type}'><properties>{properties}</properties>"
        f"<values>{values}</values>{messages}</node>"
    )


def _osc(m: Message) -> str:
    condition = "RISE" if m.constant else "ANY"
    trigger = f"<triggers><trigger><var>{_cdata(m.value)}</var><condition>{condition}</condition></trigger></triggers>"
    if m.constant:
        argument = _partial("CONSTANT", *m.constant)
    else:
        argument = _partial("VALUE", "STRING" if m.value == "text" else "FLOAT", m.value)
    receives = 0 if m.constant else 1
    return (
        f"<osc><enabled>1</enabled><send>{int(m.sends)}</send><receive>{receives}</receive><feedback>0</feedback>"
        f"<noDuplicates>0</noDuplicates><connections>{CONNECTION_1}</connections>{trigger if m.sends else ''}"
        f"<path>{_partial('CONSTANT', 'STRING', m.address)}</path><arguments>{argument}</arguments></osc>"
    )


def _partial(kind: str, conversion: str, value: str) -> str:
    return (
        f"<partial><type>{kind}</type><conversion>{conversion}</conversion><value>{_cdata(value)}</value>"
        "<scaleMin>0</scaleMin><scaleMax>1</scaleMax></partial>"
    )


def _property(kind: str, key: str, value: str) -> str:
    return f"<property type='{kind}'><key>{_cdata(key)}</key><value>{value}</value></property>"


def _colour(key: str, rgba: tuple[float, float, float, float]) -> str:
    r, g, b, a = rgba
    return _property("c", key, f"<r>{r:g}</r><g>{g:g}</g><b>{b:g}</b><a>{a:g}</a>")


def _frame(x: int, y: int, w: int, h: int) -> str:
    return _property("r", "frame", f"<x>{x}</x><y>{y}</y><w>{w}</w><h>{h}</h>")


def _value(key: str, default: str) -> str:
    return (
        f"<value><key>{_cdata(key)}</key><locked>0</locked><lockedDefaultCurrent>0</lockedDefaultCurrent>"
        f"<default>{_cdata(default)}</default><defaultPull>0</defaultPull></value>"
    )


def _cdata(text: str) -> str:
    return f"<![CDATA[{text}]]>"


def _id(name: str) -> str:
    """A stable identifier, so that the file only changes when the layout does."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tidecast/touchosc/{name}"))
