"""The TouchOSC layout: it sends to addresses that exist, shows what is reported, and nothing overlaps."""

from __future__ import annotations

import xml.etree.ElementTree as ET
import zlib

from bridge.cli import td
from bridge.control.store import ControlStore
from bridge.table import TABLE
from engine.control import PREFIX
from td_components import generate
from td_components.definition.spec import HERE
from td_components.output import touchosc

ANSWERS = {PREFIX + r.address for r in TABLE.readings} | {f"{PREFIX}/error", f"{PREFIX}/pong"}


def layout() -> ET.Element:
    return ET.fromstring(zlib.decompress((HERE / generate.LAYOUT).read_bytes()))


def test_the_layout_sends_to_addresses_that_exist_and_receives_what_is_reported():
    root = layout()
    assert root.tag == "lexml" and root.get("version") == "6"
    assert [node.get("type") for node in root] == ["GROUP"]
    paths = {}
    for node in root.iter("node"):
        for osc in node.findall("messages/osc"):
            path = osc.findtext("path/partial/value")
            assert path in TABLE.targets or path in ANSWERS, path
            assert (osc.findtext("send") == "1") <= (path in TABLE.targets)
            paths[path] = osc
    faders = {p for p in paths if p.endswith("/norm")}
    owned = {address: target for address, target in TABLE.targets.items() if target.control is not None}
    played = {t for t, v in owned.items() if v.twin == "norm" and v.control.group in touchosc.PLAYED}
    assert faders == played, "every number that is played has a fader"
    switched = {t for t, v in owned.items() if v.control.kind.value == "bool" and v.control.group in touchosc.SWITCHED}
    assert switched <= paths.keys()
    assert str(touchosc.LISTEN_PORT) in (HERE / "docs" / "controllers.md").read_text()


def test_the_layouts_names_are_unique_and_nothing_overlaps_or_leaves_the_canvas():
    widgets = touchosc.widgets(td.table())
    assert len({w.name for w in widgets}) == len(widgets)
    solid = [w for w in widgets if w.type != "LABEL"]
    for i, a in enumerate(solid):
        assert a.x >= 0 and a.y >= 0 and a.x + a.w <= touchosc.WIDTH and a.y + a.h <= touchosc.HEIGHT, a.name
        for b in solid[i + 1 :]:
            apart = a.x + a.w <= b.x or b.x + b.w <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
            assert apart, (a.name, b.name)


def test_values_that_the_buttons_send_are_understood():
    store = ControlStore(TABLE)
    recalled = []
    store.on("snapshot_recall", lambda args, caller: recalled.append(args))
    store.on("cue_go", lambda args, caller: None)
    for node in layout().iter("node"):
        if node.get("type") != "BUTTON":
            continue
        osc = node.find("messages/osc")
        path, value = osc.findtext("path/partial/value"), osc.findtext("arguments/partial/value")
        if osc.findtext("arguments/partial/type") == "CONSTANT":
            number = int(value) if osc.findtext("arguments/partial/conversion") == "INTEGER" else float(value)
            assert store.handle(path, [number]) or path.endswith("/save")
        else:
            assert store.handle(path, [1.0]) and store.handle(path, [0.0])
    assert [int(args[0]) for args in recalled] == list(range(1, touchosc.SNAPSHOTS + 1))
