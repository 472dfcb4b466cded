"""Each example runs as a program of its own, as its head says, and does what it shows."""

from __future__ import annotations

import contextlib
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.bootstrap import ROOT
from bridge.config_file import load
from bridge.control.osc.client import OscClient
from bridge.control.osc.packet import parse
from bridge.table import TABLE
from bridge.video.synthetic.pattern import BARS

EXAMPLES = ROOT / "examples"
LONGEST_S = 120.0
"""Longest time that an example may take."""

BY_ITSELF = ("web.enabled=false", "web.oscquery=false", "engine.width=256", "engine.height=144")
"""Without a page, and in the proportions of the test picture."""

BARS_TO_FOLDER = """
import runpy, sys
sys.path.insert(0, {examples!r})
from bridge.video import table
import transport
table.register(transport.ROW)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs an example with the transport of another one, so that its output can be looked at."""


def started(*command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(program: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end of a program and return what it printed."""
    try:
        said, complained = program.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        program.kill()
        program.communicate()
        raise
    assert program.returncode == code, complained[-2000:]
    return said


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    program = started(*command)
    try:
        yield program
    finally:
        if program.poll() is None:
            program.kill()
            program.communicate()


def example(name: str) -> str:
    return str(EXAMPLES / name)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def soon(happened: Callable[[], bool], program: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not happened():
        assert program.poll() is None, program.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def white(picture: Path) -> int:
    """Brightness of the first colour bar, 0 to 255; -1 while the file is not written to its end."""
    try:
        with Image.open(picture) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except OSError:
        return -1
    return int(pixels[pixels.shape[0] // 4, pixels.shape[1] // 32].mean())


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_the_head_of_an_example_says_how_it_is_started(path: Path) -> None:
    assert f".venv/bin/python examples/{path.name}" in path.read_text("utf-8").split('"""')[1]
    assert f"[{path.name}]({path.name})" in (EXAMPLES / "README.md").read_text("utf-8")
    assert f'"{path.name}"' in Path(__file__).read_text("utf-8"), "a test runs it"


def test_embed(tmp_path: Path) -> None:
    end(started(example("embed.py"), str(tmp_path / "out.png"), "13"))
    with Image.open(tmp_path / "out.png") as opened:
        row = np.asarray(opened).astype(int)
    assert row.shape == (256, 1024, 3)
    given, *restyled = np.split(row, 4, axis=1)
    for n, picture in enumerate(restyled):
        others = [given, *restyled[:n]]
        assert all(np.abs(picture - other).mean() > 5.0 for other in others), "each prompt changes the picture its way"


def test_osc_says_when_nobody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        assert f"Nothing answers at UDP port {port}" in end(started(example("osc.py"), str(port)), code=1)


def test_osc_hears_from_a_running_program_what_took_effect() -> None:
    with App(load(None, identity("pattern:bars", "null:", 64, 48))) as app:
        assert app.osc is not None
        assert end(started(example("osc.py"), str(app.osc.address[1]))) == "strength 0.8\n"
        assert app.store.snapshot.value("prompt_1") == "fire"


def test_cues_arrive_at_their_times_and_have_addresses_that_exist() -> None:
    cues, speed = runpy.run_path(example("cues.py"))["CUES"], 20.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as desk:
        desk.bind(("127.0.0.1", 0))
        desk.settimeout(LONGEST_S)
        with running(example("cues.py"), str(speed), str(desk.getsockname()[1])) as program:
            heard: list[tuple[float, str]] = []
            for _ in cues:
                (message,) = parse(desk.recv(65536))
                heard.append((time.monotonic(), message.address))
            end(program)
    assert [address for _, address in heard] == [address for _, address, _ in cues]
    assert {address for _, address in heard} <= TABLE.targets.keys()
    wanted = (cues[-1][0] - cues[0][0]) / speed
    assert heard[-1][0] - heard[0][0] == pytest.approx(wanted, rel=0.5), "they are spread as the script says"


def test_stage_darkens_the_output_when_osc_says_so(tmp_path: Path) -> None:
    port = free_port()
    driver = BARS_TO_FOLDER.format(examples=str(EXAMPLES))
    settings = ("input.uri=pattern:bars", f"output.uri=numbers:{tmp_path}", f"osc.port={port}", *BY_ITSELF)
    with running("-c", driver, example("stage.py"), *settings) as program, OscClient("127.0.0.1", port) as desk:
        soon(lambda: any(white(p) == BARS[0][0] for p in pictures(tmp_path)), program)

        def darker() -> bool:
            desk.send("/tidecast/level", (0.3,))
            return white(pictures(tmp_path)[-1]) == int(BARS[0][0] * 0.3)

        soon(darker, program)
        end(program)


def test_transport_writes_the_output_as_pictures(tmp_path: Path) -> None:
    settings = ("input.uri=pattern:bars", "osc.port=0", *BY_ITSELF)
    end(started(example("transport.py"), str(tmp_path / "made"), *settings))
    written = pictures(tmp_path / "made")
    assert [path.name for path in written[:2]] == ["000000.png", "000001.png"], "one a second"
    assert white(written[-1]) == BARS[0][0]
