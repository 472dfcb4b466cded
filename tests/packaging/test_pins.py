"""The pins: complete, hashed, without addresses, and in step with what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bridge.bootstrap import EXTRAS, ROOT
from bridge.pins import files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FILES = sorted(files.HERE.glob("*.txt"))


def pinned(path: Path) -> list[Requirement]:
    """The requirements of a file; their hashes are left out."""
    lines = path.read_text("utf-8").splitlines()
    return [Requirement(line.removesuffix(" \\")) for line in lines if not line.startswith(" ")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_of_pins_holds_versions_and_hashes_and_no_address(path: Path) -> None:
    text = path.read_text("utf-8")
    pins = pinned(path)
    assert pins
    assert all(re.fullmatch(r"==[\w.+]+", str(pin.specifier)) and not pin.url for pin in pins)
    lines = text.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith(" "):
            assert after.startswith("    --hash=sha256:"), f"{line} has no hash"
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line)
    assert "://" not in text
    assert "--index" not in text
    assert "#" not in text


@pytest.mark.parametrize("extra", ["", *PROJECT["optional-dependencies"]])
def test_what_is_asked_for_is_pinned(extra: str) -> None:
    """After a change in pyproject.toml: `python -m bridge.pins`."""
    asked = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    paths = [files.BASE, files.torch(), *([files.extra(extra)] if extra else [])]
    versions: dict[str, set[str]] = {}
    for pin in (pin for path in paths for pin in pinned(path)):
        versions.setdefault(canonicalize_name(pin.name), set()).add(str(pin.specifier).removeprefix("=="))
    for text in asked:
        requirement = Requirement(text)
        found = versions.get(canonicalize_name(requirement.name), set())
        assert found, f"{text} is not pinned"
        assert all(requirement.specifier.contains(version, prereleases=True) for version in found), text


def test_a_library_has_one_version_on_each_system() -> None:
    """An installation takes the base and some extras together."""
    versions: dict[tuple[str, str], set[str]] = {}
    for path in FILES:
        for pin in pinned(path):
            versions.setdefault((pin.name, str(pin.marker)), set()).add(str(pin.specifier))
    assert {key: found for key, found in versions.items() if len(found) > 1} == {}


def test_the_parts_of_the_start_have_their_files() -> None:
    for extras in EXTRAS.values():
        assert all(files.extra(extra).exists() for extra in extras.split(","))
    assert files.TORCH in str(next(pin.specifier for pin in pinned(files.torch()) if pin.name == "torch"))
    asked = next(line for line in PROJECT["dependencies"] if line.startswith("torch"))
    assert all(Requirement(asked).specifier.contains(version) for version in files.GPU_BUILDS.values())
    assert {str(pin) for pin in pinned(files.PYTHON)} == set(files.WINDOWS_PYTHON)
