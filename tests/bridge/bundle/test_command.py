"""`tidecast bundle windows`: its options, the files at the top of the folder, licences and weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import bridge.cli.models
from bridge.bundle import command, licences, starters, windows
from engine.models import weights
from engine.models.cache_folder import cache_folder
from engine.models.spec import WeightFile


def package(folder: Path, name: str, told: str) -> None:
    where = folder / "libraries" / f"{name}-1.dist-info"
    where.mkdir(parents=True)
    (where / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{told}\n")


def make(folder: Path, recipe: windows.Recipe) -> None:
    """Stands in for the work of uv."""
    package(folder, "torch", "License-Expression: Apache-2.0")
    package(folder, "ndi_python", "License: MIT")
    if "wan" in recipe.extras:
        package(folder, "copied", "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)")


@pytest.fixture(autouse=True)
def _no_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "make", make)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command.app, ["windows", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_the_folder_says_how_to_start_it_and_what_may_be_passed_on(tmp_path: Path) -> None:
    folder = tmp_path / "Tide cast"
    code, said = run("--out", str(folder))
    assert code == 0, said
    names = {path.name for path in folder.iterdir()}
    assert {"Demo.cmd", "Run.cmd", "Doctor.cmd", "Install into TouchDesigner.cmd", "README.txt"} <= names
    told = (folder / "LICENCES.txt").read_text("utf-8")
    assert "ndi_python: Contains the NDI library" in told
    assert "offer the source" not in told
    assert "torch 1: Apache-2.0 (libraries/torch-1.dist-info)" in told
    assert "MB in" in said
    assert (tmp_path / "Tide cast.zip").exists()


def test_what_is_under_the_gpl_comes_only_with_an_extra_and_with_a_notice(tmp_path: Path) -> None:
    code, said = run("--out", str(tmp_path / "folder"), "--extra", "wan", "--no-zip")
    assert code == 0, said
    assert "copied is under GNU General Public License v3 (GPLv3)" in said
    assert "copied: Licensed under GNU General" in (tmp_path / "folder" / "LICENCES.txt").read_text("utf-8")
    assert not (tmp_path / "folder.zip").exists()


@pytest.mark.parametrize(
    ("licence", "copyleft"),
    [
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0", True),
        ("GNU General Public License v2 or later (GPLv2+)", True),
        ("LGPL-2.1-or-later", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT", False),
    ],
)
def test_the_gpl_is_told_from_the_lgpl(licence: str, copyleft: bool) -> None:
    assert licences.Package("x", "1", licence, "").copyleft is copyleft


@pytest.mark.parametrize(
    "wrong",
    [("--gpu", "cu999"), ("--extra", "dev"), ("--extra", "unheard-of"), ("--torch-index", "http://127.0.0.1:1")],
)
def test_wrong_options_are_refused_before_anything_is_made(wrong: tuple[str, str], tmp_path: Path) -> None:
    code, said = run("--out", str(tmp_path / "folder"), *wrong)
    assert code == 2
    assert wrong[0] in said
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", starters.STARTERS)
def test_a_starter_finds_everything_by_its_own_folder(name: str, tmp_path: Path) -> None:
    starters.write(tmp_path, version="0.1.0", torch="2.13.0")
    raw = (tmp_path / name).read_bytes()
    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    lines = raw.decode().splitlines()
    assert next(line for line in lines if "python.exe" in line).startswith('"%~dp0python\\python.exe" -m bridge ')
    assert 'set "TIDECAST_CACHE=%~dp0cache"' in lines
    assert all('"%~dp0' in line for line in lines if "%~dp0" in line and "TIDECAST_CACHE" not in line), (
        "paths are quoted"
    )


def test_weights_of_this_machine_are_copied_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDECAST_CACHE", str(tmp_path / "own"))
    assert weights.folder() == cache_folder() / "models" == tmp_path / "own" / "models"
    contents = b"weights"
    file = WeightFile("dit", "net.bin", hashlib.sha256(contents).hexdigest(), len(contents), "owner/model")
    spec = SimpleNamespace(name="big", licence="Apache-2.0")
    monkeypatch.setattr(bridge.cli.models, "chosen", lambda *_: (spec, [file]))
    own = tmp_path / "own" / "models" / "owner" / "model" / "net.bin"
    own.parent.mkdir(parents=True)
    own.write_bytes(contents)
    (tmp_path / "own" / "prompts").mkdir()
    (tmp_path / "own" / "prompts" / "fire").write_text("numbers")

    folder = tmp_path / "folder"
    code, said = run("--out", str(folder), "--models", "big", "--prompts", "--no-zip")
    assert code == 0, said
    assert (folder / "cache" / "models" / "owner" / "model" / "net.bin").read_bytes() == contents
    assert (folder / "cache" / "prompts" / "fire").read_text() == "numbers"
    assert "Weights of big: Apache-2.0" in (folder / "LICENCES.txt").read_text("utf-8")

    own.write_bytes(b"another")
    with pytest.raises(command.BundleError, match=r"net\.bin: wrong content"):
        command.put_models(["big"], tmp_path / "second", "all", True)
