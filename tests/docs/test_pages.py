"""The pages: links lead somewhere; modules, commands and addresses that they name exist; the README stays short."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from bridge.cli.main import app
from bridge.table import TABLE
from bridge.video import table
from engine.control import PREFIX
from engine.models.ember.vocabulary import WORDS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(p for top in ("docs", "examples", "engine", "bridge", "td_components") for p in (ROOT / top).rglob("*.md")),
    ]
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_modules_and_tests_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for module in re.findall(r"python3? -m ((?:bridge|engine|td_components|tests)(?:\.\w+)*)", text):
        assert importlib.util.find_spec(module), module
    for path in re.findall(r"(?<![\w/])tests/[\w/]+(?:\.py)?", text):
        assert (ROOT / path).exists(), path


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_the_table_of_transports_is_as_it_is_now() -> None:
    page = (ROOT / "docs" / "operators" / "video.md").read_text("utf-8")
    held = page.partition("<!-- transports:begin -->")[2].partition("<!-- transports:end -->")[0].strip()
    assert held == table.markdown().strip()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=name)
def test_files_and_folders_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path in re.findall(r"`((?:engine|bridge|td_components|configs|examples)/[\w/.-]*)`", text):
        assert (ROOT / path).exists(), path


def test_types_stand_where_structures_says() -> None:
    rows = re.findall(r"^\| (.+?) \| `([\w/.]+)` \|", (ROOT / "docs" / "structures.md").read_text("utf-8"), re.M)
    assert rows
    for types, path in rows:
        for word in re.findall(r"`(\w+)`", types):
            assert re.search(rf"^class {word}\b", (ROOT / path).read_text("utf-8"), re.M), (word, path)


def test_the_page_of_prompts_names_every_word() -> None:
    page = (ROOT / "docs" / "artists" / "prompts.md").read_text("utf-8")
    held = page.partition("<!-- words:begin -->")[2].partition("<!-- words:end -->")[0]
    assert sorted(re.findall(r"`(\w+)`", held)) == sorted(WORDS)


ANSWERS = {"/error", "/pong", "/midi/learned", "/echo"}
"""Addresses at which Tidecast answers, beside the readings."""


def code(page: Path) -> Iterator[str]:
    """Every line of code of a page: of its blocks and of its spans."""
    text = page.read_text("utf-8")
    blocks = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
    for block in blocks.findall(text):
        yield from block.splitlines()
    text = blocks.sub("", text)
    yield from re.findall(r"^ {4,}(\S.*)$", text, re.M)
    yield from re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_that_are_named_exist(page: Path) -> None:
    for line in code(page):
        match = re.match(r"(?:tidecast|py(?:thon3?)?(?: -3\.\d+)? -m bridge) (.*)", line.partition(" #")[0].strip())
        words = match[1].split() if match else []
        command = typer.main.get_command(app)
        for word in words:
            if not isinstance(command, TyperGroup) or not re.fullmatch(r"[a-z][a-z-]*", word):
                break
            found = command.get_command(typer.Context(command), word)
            assert found is not None, line
            command = found
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert options <= known, line


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_addresses_that_are_named_exist(page: Path) -> None:
    known = {*TABLE.targets, *(PREFIX + reading.address for reading in TABLE.readings), *(PREFIX + a for a in ANSWERS)}
    for line in code(page):
        for address in re.findall(rf"(?<![\w/.]){PREFIX}/[\w/*.]+", line):
            assert address in known or re.search(r"[A-Z*]|\.\.", address), line


@pytest.mark.parametrize("page", [page for page in PAGES if page.name == "README.md"], ids=name)
def test_modules_of_a_folder_that_its_readme_lists_exist(page: Path) -> None:
    for row in re.findall(r"^\| (`[^|]+`) \|", page.read_text("utf-8"), re.M):
        for path in re.findall(r"`([\w/]+(?:\.py|/))`", row):
            assert (page.parent / path).exists(), path
