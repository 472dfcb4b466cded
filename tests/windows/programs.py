"""Whole programs under Wine: those that watch themselves (`inside`), and those with a program of Linux beside them."""

from __future__ import annotations

import contextlib
import importlib.resources
import io
import re
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.bundle import archive, starters
from tests.support.browser import Browser
from tests.support.video_peers import Peer, serve_with_cyndilib, watch_colour_with_cyndilib
from tests.windows import inside
from tests.windows.prepare import windows_path
from tests.windows.wine import Wine, end

PLACE = "Ein Stick é 日本"
"""Where the portable folder is put: a path with spaces and letters of several scripts."""

QUIET = ("--set", "web.announce=false")
TOLERANCE = 8


class Failed(Exception):
    """A program did not do what it must; says what, and what it printed."""


@dataclass(frozen=True, slots=True)
class Case:
    """A program of the table: its name there, and what runs it, for so many seconds at most, and gives its figure."""

    name: str
    run: Callable[[Wine, float], str]


LIMIT_S = 600.0
"""Longest time of one program. An idle machine needs a tenth of it."""


def watched(name: str) -> Callable[[Wine, float], str]:
    """A program that watches itself."""

    def run(wine: Wine, limit_s: float) -> str:
        ended = wine.run(wine.python, "-m", "tests.windows.inside", name, timeout_s=limit_s)
        if ended.code:
            raise Failed(f"exit code {ended.code}: {ended.output.strip()[-3000:]}")
        return ended.output.strip().splitlines()[-1]

    return run


def ndi_to_wine(wine: Wine, limit_s: float) -> str:
    """NDI with alpha from Linux to Wine."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Peer(serve_with_cyndilib, "tidecast wine alpha in", folder, inside.COLOUR),
    ):
        return watched("ndi_in")(wine, limit_s)


def ndi_from_wine(wine: Wine, limit_s: float) -> str:
    """NDI from Wine to Linux; Tidecast's outputs have no alpha."""
    sender = wine.start(wine.python, "-m", "tests.windows.inside", "ndi_out")
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            Peer(watch_colour_with_cyndilib, "tidecast wine out", folder) as peer,
        ):
            got = peer.answer(limit_s)
    finally:
        end(sender)
    sent = inside.COLOUR[:3]
    if max(abs(a - b) for a, b in zip(sent, got, strict=False)) > TOLERANCE:
        raise Failed(f"sent {sent}, received {got}")
    return f"sent {sent}, received {tuple(got[:3])}"


@contextlib.contextmanager
def _bridge(wine: Wine, *words: str, limit_s: float, network: bool = True) -> Iterator[list[str]]:
    """A program that is running: its state is "running". Yields what it has printed until then."""
    process = wine.start(*words, network=network)
    deadline = time.monotonic() + limit_s
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("running"):
                break
            if time.monotonic() > deadline:
                raise Failed(f"not running: {''.join(lines)}")
        else:
            raise Failed(f"it ended: {''.join(lines)}")
        yield lines
    finally:
        end(process)


def page(wine: Wine, limit_s: float) -> str:
    """The page of a demo under Wine, opened by Chromium on Linux."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = (
        "--plain",
        "--output",
        "null:",
        "--osc-port",
        "0",
        "--web-port",
        str(port),
        "--set",
        "web.announce=false",
    )
    with _bridge(wine, wine.python, "-u", "-c", inside.MAIN, "demo", *options, limit_s=limit_s), Browser() as browser:
        tab = browser.tab()
        began = time.monotonic()
        tab.open(f"http://127.0.0.1:{port}/")
        tab.until(
            "document.querySelector('.dot.running, #state.running, [data-state=running]') !== null || "
            "document.body.innerText.includes('running')",
            "the page says that it runs",
        )
        took_s = time.monotonic() - began
        if complaints := tab.complaints():
            raise Failed(f"the browser complains: {complaints}")
    return f"shows the running state {took_s:.1f} s after it was opened, without complaints"


@contextlib.contextmanager
def _stick(wine: Wine) -> Iterator[Path]:
    """The portable folder at a path with spaces and letters of several scripts."""
    place = wine.cache / PLACE
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(wine.cache / "folder", place, copy_function=_link)
    for name in ("numpy", "numpy.libs"):  # see `prepare.NUMPY`
        shutil.rmtree(place / "libraries" / name, ignore_errors=True)
        if (wine.cache / "wine-numpy" / name).exists():
            shutil.copytree(wine.cache / "wine-numpy" / name, place / "libraries" / name)
    starters.write(place, version="0", torch="CPU")
    try:
        yield place
    finally:
        shutil.rmtree(place)


def portable(wine: Wine, limit_s: float) -> str:
    """The portable folder, without any network."""
    with _stick(wine) as place:
        size, began = archive.size(place), time.monotonic()
        start = ("cmd", "/c", windows_path(place / "Demo.cmd"), "--plain", "--output", "null:", *QUIET)
        with _bridge(wine, *start, limit_s=limit_s, network=False):
            ready_s = time.monotonic() - began
    return f"{size / 1e6:.0f} MB; first restyled picture {ready_s:.0f} s after the double-click, without network"


def double_clicks(wine: Wine, limit_s: float) -> str:
    """Every other file to double-click in the portable folder; TouchDesigner's tool is a stand-in."""
    with _stick(wine) as place, tempfile.TemporaryDirectory() as beside:  # cmd /c takes one quoted word: no spaces

        def click(name: str, *words: str, codes: tuple[int, ...] = (0,)) -> str:
            ended = wine.run("cmd", "/c", windows_path(place / name), *words, timeout_s=limit_s, network=False)
            if ended.code not in codes:
                raise Failed(f"{name} ended with {ended.code}: {ended.output.strip()[-8000:]}")
            return ended.output

        (place / "show.toml").write_text('[input]\nuri = "pattern:bars"\n[process]\nkind = "identity"\n', "utf-8")
        ran = click("Run.cmd", "--plain", "--output", "null:", "--seconds", "3", *QUIET)
        if not re.search(r"input +pattern:bars", ran):
            raise Failed(f"Run.cmd did not obey show.toml: {ran[-2000:]}")
        if "network" not in click("Doctor.cmd", codes=WITH_PAUSE):  # the last row
            raise Failed("Doctor.cmd did not get to its end")
        tool = Path(beside) / "TouchDesigner" / "bin" / "toecollapse.exe"
        tool.parent.mkdir(parents=True)
        tool.write_bytes(stand_in_program(windows_path(place / "python" / "python.exe"), COLLAPSE))
        documents = Path(beside) / "Documents"
        words = ("--touchdesigner", windows_path(tool.parent.parent), "--documents", windows_path(documents))
        click("Install into TouchDesigner.cmd", *words, codes=WITH_PAUSE)
        made = documents / "Derivative" / "Palette" / "Tidecast.tox"
        if made.read_bytes() != b"made":
            raise Failed("Install into TouchDesigner.cmd made no component")
    return "Run with a show.toml, Doctor, and Install into TouchDesigner do what they say"


WITH_PAUSE = (0, 1)
"""Exit codes of a file that ends with `pause`, which fails under Wine where nobody can press a key."""

COLLAPSE = "import sys; open(sys.argv[1], 'wb').write(b'made'); sys.exit(1)"
"""What stands in for TouchDesigner's `toecollapse`, which also ends with 1 when it succeeds."""


def stand_in_program(python: str, text: str) -> bytes:
    """A program for Windows that runs a text in Python: the launcher that pip puts in front of every command."""
    launcher = importlib.resources.files("pip._vendor.distlib").joinpath("t64.exe").read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        zipped.writestr("__main__.py", text)
    return launcher + f'#!"{python}"\n'.encode() + packed.getvalue()


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


CASES = (
    Case("Bridge ended by TerminateProcess", watched("terminated")),
    Case("Ctrl+C", watched("ctrl_c")),
    Case("Started twice", watched("twice")),
    Case("Profile that cannot be written, code page 437", watched("nothing_writable")),
    Case("Spout output", watched("spout")),
    Case("NDI, Linux to Wine, with alpha", ndi_to_wine),
    Case("NDI, Wine to Linux", ndi_from_wine),
    Case("Engine killed", watched("engine_killed")),
    Case("Engine hung", watched("engine_hangs")),
    Case("Engine out of memory", watched("engine_out_of_memory")),
    Case("Demo for a minute", watched("demo")),
    Case("OSC flood", watched("flood")),
    Case("Page in Linux' Chromium", page),
    Case("Portable folder", portable),
    Case("Its other files to double-click", double_clicks),
    Case("Twenty starts", watched("twenty_starts")),
)
"""In the order in which they are run."""
