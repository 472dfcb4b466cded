"""Which build of torch a fresh checkout installs. Windows cannot run here: its commands are looked at, not run."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from bridge import bootstrap


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What `install` would run, each without the interpreter."""
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert Path(command[0]) == bootstrap.python()
        assert command[1] == "-m"
        ran.append(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    monkeypatch.setattr(bootstrap, "python", lambda: PurePosixPath("venv/python"))
    return ran


def test_without_a_gpu_the_small_build_comes_first(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: False)
    bootstrap.install("bridge")
    assert commands[0][-2:] == ["install", "torch==2.13.0"]
    assert commands[1][-2:] == ["--editable", f"{bootstrap.ROOT}[midi,web]"]
    assert bootstrap.stamp("bridge").exists()


def test_on_windows_a_gpu_gets_the_build_that_can_use_it(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: True)
    monkeypatch.setattr(bootstrap, "on_windows", lambda: True)
    bootstrap.install("bridge")
    uv, torch, everything = commands
    assert uv[-2:] == ["install", "uv"]
    assert torch[:5] == ["uv", "pip", "install", "--torch-backend", "auto"]
    assert torch[5:7] == ["--python", "venv/python"]
    assert torch[7].startswith("torch>=")
    assert "--editable" in everything


def test_elsewhere_a_gpu_gets_what_pip_finds(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: True)
    bootstrap.install("tests")
    assert [command[0] for command in commands] == ["pip"]
    assert commands[0][-1].endswith("[wan,midi,web,dev]")


def test_an_older_python_is_told_so_before_anything_else() -> None:
    source = (bootstrap.ROOT / "bridge" / "bootstrap.py").read_text("utf-8")
    top = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert "tomllib" not in top  # since 3.11: its absence must not hide the sentence


def test_a_failed_installation_shows_what_the_installer_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], stdout: Any, **_: Any) -> subprocess.CompletedProcess[bytes]:
        stdout.write("no room on the disk")
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit) as ended:
        bootstrap.pip("install", "anything")
    assert ended.value.code == 2
    assert "no room on the disk" in capsys.readouterr().err
