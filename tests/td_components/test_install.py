"""`tidecast td install` against a STAND-IN for TouchDesigner's toecollapse; the real one never ran here."""

from __future__ import annotations

import os
import stat
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli import td
from td_components import install

STAND_IN = f"""#!{sys.executable}
# STAND-IN for toecollapse: needs NAME.tox.toc and every listed file, keeps an old target as .bkp1, exits 1.
import pathlib, sys, zipfile
target = pathlib.Path(sys.argv[1])
listed = pathlib.Path(str(target) + ".toc").read_text().splitlines()[1:]
if target.exists():
    target.rename(str(target) + ".bkp1")
with zipfile.ZipFile(target, "w") as archive:
    for path in listed:
        archive.write(pathlib.Path(str(target) + ".dir") / path, path)
sys.exit(1)
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in is a POSIX script")


@pytest.fixture
def touchdesigner(tmp_path: Path) -> Path:
    program(tmp_path / "TouchDesigner.2025.32820" / "bin" / "toecollapse", STAND_IN)
    return tmp_path / "TouchDesigner.2025.32820"


def run(*args: str):
    return CliRunner().invoke(td.app, ["install", *args])


def test_the_tox_lands_in_the_palette_and_replaces_an_older_one(tmp_path, touchdesigner):
    documents = tmp_path / "Documents"
    for _ in range(2):
        result = run("--touchdesigner", str(touchdesigner), "--documents", str(documents))
        assert result.exit_code == 0, result.output
    target = documents / "Derivative" / "Palette" / "Tidecast.tox"
    assert str(target) in result.output.replace("\n", "")
    with zipfile.ZipFile(target) as archive:
        assert "Tidecast/TidecastExt.text" in archive.namelist()
    assert [p.name for p in target.parent.iterdir()] == ["Tidecast.tox"]


def test_the_expanded_tree_itself_is_left_alone(tmp_path, touchdesigner):
    before = {p: p.stat().st_mtime_ns for p in install.HERE.rglob("*") if p.is_file()}
    run("--touchdesigner", str(touchdesigner), "--documents", str(tmp_path))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert not (install.HERE / "Tidecast.tox").exists()


def test_without_touchdesigner_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(install, "tools", lambda *args: [])
    result = run()
    assert result.exit_code == 1
    assert "build_in_td.py" in result.output and "Run Script" in result.output


def test_a_wrong_folder_is_named(tmp_path):
    result = run("--touchdesigner", str(tmp_path))
    assert result.exit_code == 1 and "no toecollapse" in result.output


def test_a_tool_that_makes_nothing_is_reported(tmp_path):
    tool = program(tmp_path / "toecollapse", "#!/bin/sh\necho no licence\nexit 0\n")
    with pytest.raises(install.InstallError, match="it said: no licence"):
        install.collapse(tool)


def test_a_palette_that_cannot_be_written_is_reported(tmp_path, touchdesigner):
    (tmp_path / "Documents").write_text("a file, not a folder")
    result = run("--touchdesigner", str(touchdesigner), "--documents", str(tmp_path / "Documents"))
    assert result.exit_code == 1 and "--documents" in result.output


def test_the_newest_installation_is_found_on_windows_and_macos(tmp_path):
    programs = tmp_path / "Program Files"
    for build in ("TouchDesigner.2022.35320", "TouchDesigner.2025.32820", "TouchDesigner.2023.11340"):
        program(programs / "Derivative" / build / "bin" / "toecollapse.exe", "")
    found = install.tools("win32", {"ProgramFiles": str(programs), "ProgramW6432": str(programs)})
    assert found[0].parts[-3] == "TouchDesigner.2025.32820" and len(found) == 3
    program(tmp_path / "Applications/TouchDesigner.app/Contents/MacOS/toecollapse", "")
    assert len(install.tools("darwin", {}, tmp_path)) == 1
    assert install.tool_in(tmp_path / "Applications/TouchDesigner.app").name == "toecollapse"
    assert install.tools("linux", {}, tmp_path) == []
