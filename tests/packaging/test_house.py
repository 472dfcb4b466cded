"""The shape of the code: sizes of modules and folders, and names that do not come back."""

from __future__ import annotations

import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.bootstrap import ROOT

LONGEST = 400
"""Lines of a module of engine and bridge."""

MEDIAN = 170
"""Lines of the module in the middle, of engine and bridge together."""

FULLEST = 12
"""Modules of a folder, `__init__.py` aside."""


OLD_NAMES = {
    "chains",
    "common",
    "considerate",
    "here",
    "lanes",
    "lean",
    "moments",
    "parcel",
    "part",
    "patience",
    "pulse",
    "rehearsal",
    "room",
    "slots",
    "utils",
    "wire",
}
"""Names of modules that had to be explained, and names that say nothing."""


def modules(*packages: str) -> Iterator[Path]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "__init__.py":
                yield path


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def length(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_no_module_is_too_long() -> None:
    lengths = {name(path): length(path) for path in modules("engine", "bridge")}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}
    assert statistics.median(lengths.values()) <= MEDIAN


def test_no_folder_is_too_full() -> None:
    count = Counter(name(path.parent) for path in modules("engine", "bridge", "td_components"))
    assert not {folder for folder, number in count.items() if number > FULLEST}


def test_packages_keep_their_contents_in_modules() -> None:
    for package in ("engine", "bridge", "td_components", "configs"):
        for path in (ROOT / package).rglob("__init__.py"):
            assert length(path) <= 10, f"{name(path)} holds more than a sentence"


@pytest.mark.parametrize("package", ["engine", "bridge", "td_components", "tests"])
def test_no_module_has_an_old_name(package: str) -> None:
    found = [name(path) for path in modules(package) if path.stem.removeprefix("test_") in OLD_NAMES]
    assert not found


def test_the_formatter_decides() -> None:
    """Exceptions from the formatter stay under ten."""
    skipped = []
    for path in modules("engine", "bridge", "td_components", "tests"):
        if path.name == "build_in_td.py":
            continue
        text = path.read_text("utf-8")
        if "fmt:" in text:
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            skipped += [
                f"{name(path)}:{t.start[0]}" for t in tokens if t.type == tokenize.COMMENT and "fmt:" in t.string
            ]
    assert len(skipped) < 10, skipped
