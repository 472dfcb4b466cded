"""The guides and the TouchOSC layout: only addresses, names and ports that exist."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
import zlib

import pytest
import typer

from bridge.cli import main, td
from bridge.table import TABLE
from engine.control import PREFIX
from td_components import generate
from td_components.definition import network, pages
from td_components.definition.spec import HERE
from td_components.output import diagrams, touchosc

GUIDES = sorted((HERE / "docs").glob("*.md"))
ANSWERS = {PREFIX + r.address for r in TABLE.readings} | {f"{PREFIX}/error", f"{PREFIX}/pong"}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_a_guide_names_only_addresses_and_parameters_that_exist(guide):
    text = guide.read_text()
    for address in re.findall(r"/tidecast/[\w/]+", text):
        assert address in TABLE.targets or address in ANSWERS, address
    table = td.table()
    names = {p.name for p in network.component(table, "0").parameters}
    for name in re.findall(r"\.par\.(\w+)", text):
        assert name in names, name


@pytest.mark.parametrize("guide", [*GUIDES, HERE / "README.md"], ids=lambda p: p.stem)
def test_its_pictures_and_links_are_there(guide):
    for target in re.findall(r"\]\(([^)#]+)", guide.read_text()):
        assert (guide.parent / target).exists(), target


@pytest.mark.parametrize("guide", [*GUIDES, HERE / "README.md"], ids=lambda p: p.stem)
def test_its_command_lines_exist(guide):
    lines = re.findall(r"`(tidecast [^`]+)`", guide.read_text()) + re.findall(
        r"^ {4}(tidecast .+)$", guide.read_text(), re.M
    )
    for line in lines:
        command, words = typer.main.get_command(main.app), shlex.split(line)[1:]
        context = typer.Context(command)
        while words and not words[0].startswith("-") and hasattr(command, "get_command"):
            command = command.get_command(context, words.pop(0))
            assert command is not None, line
            context = typer.Context(command)
        known = {option for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"(?<!\S)--[\w-]+", " ".join(words)):
            assert option in known, line


def test_every_picture_is_sound_svg_with_a_title_and_is_used():
    table = td.table()
    drawn = diagrams.pictures(table, network.component(table, table["version"]))
    shown = "".join(p.read_text() for p in [*GUIDES, HERE / "README.md"])
    for name, data in drawn.items():
        root = ET.fromstring(data)
        assert root.find("{http://www.w3.org/2000/svg}title").text
        assert len(data) < 60_000 and name in shown, name


def test_parameters_that_the_guide_names_in_words_exist():
    labels = {p.label for p in network.component(td.table(), "0").parameters}
    text = (HERE / "docs" / "touchdesigner.md").read_text()
    for label in (
        "Transport",
        "Start",
        "Prompt 1",
        "Strength",
        "Bypass",
        "Store Preset",
        "Recall Preset",
        "Callback DAT",
        "Keep Running",
        "Address",
        "Extra IPs",
        "Process",
        "OSC Port",
        "Listen Port",
        "Send Name",
        "Input",
        "NDI Source",
        "Receive Name",
        "Black",
        "Last Error",
        "Executable",
        "Weight 1",
        "Selftest",
    ):
        assert label in labels and label in text, label


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
    numeric = {t for t, v in TABLE.targets.items() if v.twin == "norm"}
    assert faders == numeric, "every number has a fader"
    toggles = {t for t, v in TABLE.targets.items() if v.control is not None and v.control.kind.value == "bool"}
    assert toggles <= paths.keys()
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
    from bridge.control.store import ControlStore

    store = ControlStore(TABLE)
    recalled = []
    store.on("snapshot_recall", lambda args, caller: recalled.append(args))
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


def test_pages_and_commands_of_the_table_are_told_apart():
    shown = {*pages.LINK_COMMANDS}
    assert not shown & pages.HIDDEN_COMMANDS.keys()
