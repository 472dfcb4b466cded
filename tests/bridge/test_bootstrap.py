"""What a fresh checkout installs: which build of torch, and system packages only with permission.

Neither Windows' commands nor apt-get are run: what would be run is looked at.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
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


class Terminal(io.StringIO):
    """Text that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What root on a Debian would run. No terminal, and nothing said in the environment."""
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("TIDECAST_APT", raising=False)
    return ran


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> Terminal:
    """A terminal at which `text` is typed; returns what it shows."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(text))
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


INSTALLED = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "libavahi-client3"]


@pytest.mark.parametrize("typed", ["\n", "y\n", "Yes\n"])
def test_root_at_a_terminal_is_asked(apt: list[list[str]], monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    shown = answer(monkeypatch, typed)
    bootstrap.debian_install(("libavahi-client3",), "for NDI")
    assert "libavahi-client3 are missing, for NDI. Install them with apt-get? [Y/n]" in shown.getvalue()
    assert apt == [INSTALLED]


@pytest.mark.parametrize("typed", ["n\n", "what?\n", ""])
def test_without_a_yes_nothing_is_installed(apt: list[list[str]], monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    shown = answer(monkeypatch, typed)
    with pytest.raises(SystemExit) as ended:
        bootstrap.debian_install(("libavahi-client3",), "for NDI")
    assert ended.value.code == 2
    assert "Run: apt-get install libavahi-client3" in shown.getvalue()
    assert apt == []


def test_the_environment_decides_before_the_terminal(apt: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = answer(monkeypatch, "n\n")
    monkeypatch.setenv("TIDECAST_APT", "yes")
    bootstrap.debian_install(("libavahi-client3",), "for NDI")
    assert "[Y/n]" not in shown.getvalue()
    assert apt == [INSTALLED]
    answer(monkeypatch, "y\n")
    for word in ("no", "perhaps"):
        monkeypatch.setenv("TIDECAST_APT", word)
        with pytest.raises(SystemExit):
            bootstrap.debian_install(("libavahi-client3",), "for NDI")
    assert apt == [INSTALLED]


def test_an_unattended_root_gets_them_and_reads_which(apt: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap.debian_install(("libavahi-client3",), "for NDI")
    assert apt == [INSTALLED]
    assert "installing libavahi-client3 with apt-get (for NDI; TIDECAST_APT=no forbids it)" in capsys.readouterr().err


def test_who_is_not_root_reads_the_command(
    apt: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    monkeypatch.setenv("TIDECAST_APT", "yes")
    with pytest.raises(SystemExit):
        bootstrap.debian_install(("libavahi-client3",), "for NDI")
    assert "Run: sudo apt-get install libavahi-client3" in capsys.readouterr().err
    assert apt == []
