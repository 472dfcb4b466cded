"""The guides: only addresses, names and command lines that exist."""

from __future__ import annotations

import re
import shlex

import pytest
import typer

from bridge.cli import main, td
from bridge.table import TABLE
from engine.control import PREFIX
from td_components.definition import network
from td_components.definition.spec import HERE

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
        "Follow TouchDesigner's Tempo",
        "Beat CHOP",
    ):
        assert label in labels and label in text, label
