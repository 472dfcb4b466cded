"""One letter of a shape means one thing everywhere: what the glossary says is all that names and module texts use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")
ROWS = re.findall(r"^\| ([A-Za-z](?:[ ,]+[A-Za-z])*) \| .+ \|$", GLOSSARY, re.M)
LETTERS = {letter for row in ROWS for letter in re.findall(r"[A-Za-z]", row)}
MODULES = sorted((ROOT / "engine").rglob("*.py"))
SUFFIX = re.compile(r"\b[a-z][a-z0-9_]*_([A-Z][A-Za-z0-9]*)\b")


def test_the_glossary_has_letters() -> None:
    assert {"S", "C", "F", "L", "D", "J", "K", "h", "w"} <= LETTERS


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_use_the_letters_of_the_glossary(module: Path) -> None:
    for suffix in SUFFIX.findall(module.read_text("utf-8")):
        letters = set(re.findall(r"[A-Za-z]", suffix))
        assert not letters - LETTERS, (suffix, letters - LETTERS)
        for height, width in ("HW", "hw"):  # a height alone would be something else, such as heads
            assert (height in letters) == (width in letters), suffix


@pytest.mark.parametrize(
    ("letter", "never"),
    [
        ("T", "text|prompt"),
        ("H", "heads"),
        ("N", "heads|slots"),
        ("D", "width of a head"),
        ("L", "text"),
        ("P", "frames|pool"),
        ("Q", "frames|queries"),
    ],
)
def test_a_letter_has_one_meaning(letter: str, never: str) -> None:
    for module in MODULES:
        for line in re.findall(r"Shape letters:.*?(?:\n\n|\"\"\")", module.read_text("utf-8"), re.S):
            assert not re.search(rf"\b{letter} (?:{never})", line.replace("\n", " ")), (module, line)
