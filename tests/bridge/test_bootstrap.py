"""What a fresh checkout installs: which build of torch, and system packages only with permission.

No installer is run: what would be run is looked at.
"""

from __future__ import annotations

import importlib.util
import io
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from bridge import bootstrap


@dataclass
class Installers:
    """Stands in for pip and uv. Only what they are asked for is kept, without interpreter and `--quiet`.

    Attributes:
        fails: the first words of commands that fail.
        ran: the commands, in order.
    """

    fails: tuple[str, ...] = ()
    ran: list[str] = field(default_factory=list)

    def run(self, command: list[str], stdout: Any = None, **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[:2] == ["venv/python", "-m"]
        quiet = "--quiet" in command
        assert quiet == (stdout is not None), "it is quiet where nobody watches, and shows its progress at a terminal"
        words = " ".join(word for word in command[2:] if word not in ("--quiet", "--disable-pip-version-check"))
        self.ran.append(words)
        failed = bool(self.fails) and words.startswith(self.fails)
        if failed and stdout is not None:
            stdout.write("error: Request failed after 3 retries\n  cause: no such host")
        return subprocess.CompletedProcess(command, int(failed))


@pytest.fixture
def installers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installers:
    stand_in = Installers()
    monkeypatch.setattr(subprocess, "run", stand_in.run)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    monkeypatch.setattr(bootstrap, "python", lambda: PurePosixPath("venv/python"))
    return stand_in


PINS = bootstrap.ROOT / "bridge" / "pins"
HASHED = "pip install --no-deps --require-hashes -r"
EXTRAS = "".join(f" -r {PINS / f'extra-{name}.txt'}" for name in ("midi", "web", "audio"))
EVERYTHING = [
    f"{HASHED} {PINS / 'base.txt'}{EXTRAS}",
    f"pip install --no-deps --no-build-isolation --editable {bootstrap.ROOT}",
]
GET_UV = f"{HASHED} {PINS / 'uv.txt'}"
TORCH = "torch==2.13.0"
ANY_TORCH = "torch>=2.11,<=2.13.0"
PINNED_TORCH = f"--no-deps --require-hashes -r {PINS / 'torch.txt'}"

SYSTEMS = [
    # system, processor, NVIDIA driver, what uv is asked for, what pip is asked for otherwise, its size
    ("linux", "x86_64", False, f"cpu {TORCH}", TORCH, "if its index has no other build, with CUDA: about 3 GB"),
    ("linux", "x86_64", True, f"auto {ANY_TORCH}", TORCH, "if its index has no other build, with CUDA: about 3 GB"),
    ("linux", "aarch64", False, "", PINNED_TORCH, "about 0.2 GB"),
    ("linux", "aarch64", True, f"auto {ANY_TORCH}", PINNED_TORCH, "about 0.2 GB"),
    ("win32", "AMD64", False, "", PINNED_TORCH, "about 0.2 GB"),
    ("win32", "AMD64", True, f"auto {ANY_TORCH}", PINNED_TORCH, "about 0.2 GB"),
    ("darwin", "arm64", False, "", PINNED_TORCH, "about 0.2 GB"),
]


@pytest.mark.parametrize(("system", "processor", "driver", "from_uv", "from_pip", "size"), SYSTEMS)
def test_uv_chooses_the_build_of_torch_where_pip_has_another_and_pip_takes_its_place(
    system: str,
    processor: str,
    driver: bool,
    from_uv: str,
    from_pip: str,
    size: str,
    installers: Installers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: driver)
    bootstrap.install("bridge")
    backend, _, wanted = from_uv.partition(" ")
    first = [GET_UV, f"uv pip install --torch-backend {backend} --python venv/python {wanted}"]
    assert installers.ran == [*(first if from_uv else [f"pip install {from_pip}"]), *EVERYTHING]
    assert bootstrap.stamp("bridge").exists()
    said = capsys.readouterr().err
    assert ("with CUDA: about 3 GB to download, 5 GB on the disk" if driver else "about 0.2 GB to download") in said

    # no uv for this system; or the index of torch's builds cannot be reached
    for fails in (GET_UV, "uv") if from_uv else ():
        installers.ran, installers.fails = [], (fails,)
        bootstrap.install("bridge")
        assert installers.ran[-3:] == [f"pip install {from_pip}", *EVERYTHING]
        said = capsys.readouterr().err
        assert "uv could not do it (error: Request failed after 3 retries)" in said
        assert f"asking pip ({size}" in said
        assert ("that build cannot use the NVIDIA card; tidecast doctor" in said) == (driver and "CUDA" not in size)
        assert ("pip's build needs NVIDIA driver 580 or newer; tidecast doctor" in said) == (driver and "CUDA" in size)


def test_other_pins_install_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = bootstrap.stamp("bridge")
    other = tmp_path / "base.txt"
    other.write_text("numpy==1")
    monkeypatch.setattr(bootstrap, "pins", lambda _: [other])
    assert bootstrap.stamp("bridge") != before


def test_a_python_without_venv_does_not_try(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows' embeddable Python, of which the portable folder is made."""
    program = "import sys; sys.modules['venv'] = None; import bridge.bootstrap as b; print(b.OLDEST_PYTHON)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=bootstrap.ROOT)
    assert done.stdout == "(3, 11)\n", done.stderr
    monkeypatch.setattr(bootstrap, "python", lambda: Path("nowhere"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        bootstrap.create()
    assert "Libraries are missing, and this Python cannot make an environment" in capsys.readouterr().err


def test_at_a_terminal_the_installers_show_their_progress(
    installers: Installers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: False)
    installers.fails = ("uv",)
    bootstrap.install("bridge")  # the stand-in checks that nothing is caught
    assert "uv could not do it (uv ended with code 1, see above)" in shown.getvalue()


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


@pytest.mark.parametrize(
    ("part", "packages"),
    [
        ("bridge", ["libavahi-client3"]),
        ("tests", ["libavahi-client3", "libportaudio2", "chromium", "chromium-driver", "liblo-tools", "npm", "xvfb"]),
    ],
)
def test_a_bare_linux_gets_the_packages_that_are_missing(
    apt: list[list[str]], monkeypatch: pytest.MonkeyPatch, part: str, packages: list[str]
) -> None:
    present: set[str] = set()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(bootstrap, "has_library", lambda _: bool(present))
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apt-get" or name in present else None)
    bootstrap.system_packages(part)
    assert apt == [[*INSTALLED[:-1], *packages]]
    present |= {"chromium", "chromedriver", "oscsend", "npm"}
    bootstrap.system_packages(part)
    assert [call[5:] for call in apt[1:]] == ([["xvfb"]] if part == "tests" else [])
    present.add("Xvfb")
    del apt[:]
    bootstrap.system_packages(part)
    assert apt == []
