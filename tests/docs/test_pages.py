"""The pages: links lead somewhere, modules and tests that are named exist, the README stays short."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from bridge.video import table
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
