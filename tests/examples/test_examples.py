"""The examples run."""

from __future__ import annotations

import importlib
import runpy
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.config_file import load
from bridge.control.osc.packet import parse
from bridge.pipeline.stages.table import STAGES
from bridge.table import TABLE
from bridge.video import table

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_embed(tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLES / "embed.py"))["main"](str(tmp_path / "out.png"), 13)
    assert Image.open(tmp_path / "out.png").size == (1024, 256)


def test_osc_says_when_nobody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        assert runpy.run_path(str(EXAMPLES / "osc.py"))["main"](silent.getsockname()[1]) is None


def test_osc_hears_from_a_running_program_what_took_effect() -> None:
    with App(load(None, identity("pattern:bars", "null:", 64, 48))) as app:
        assert app.osc is not None
        strength = runpy.run_path(str(EXAMPLES / "osc.py"))["main"](app.osc.address[1])
        assert app.store.snapshot.value("prompt_1") == "fire"
    assert strength == pytest.approx(0.8)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_the_head_of_an_example_says_how_it_is_started(example: Path) -> None:
    assert f".venv/bin/python examples/{example.name}" in example.read_text("utf-8").split('"""')[1]
    assert f"[{example.name}]({example.name})" in (EXAMPLES / "README.md").read_text("utf-8")


def test_cues_arrive_in_order_and_have_addresses_that_exist() -> None:
    example = runpy.run_path(str(EXAMPLES / "cues.py"))
    cues = [(0.0, address, args) for _, address, args in example["CUES"]]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as desk:
        desk.bind(("127.0.0.1", 0))
        desk.settimeout(5.0)
        example["play"](cues, desk.getsockname()[1])
        heard = [m.address for _ in cues for m in parse(desk.recv(65536))]
    assert heard == [address for _, address, _ in cues]
    assert set(heard) <= TABLE.targets.keys()


def soon(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 30.0
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("stage")
    with App(load(None, identity("pattern:bars", "null:", 64, 48)), stages=(*STAGES, example.ROW)) as app:
        app.store.set("level", 0.5)
        assert app.store.snapshot.of(example.LevelControls).level == 0.5
        soon(lambda: app.telemetry.snapshot().get("cost_level", 0.0) > 0.0)


def test_transport(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("transport")
    monkeypatch.setattr(table, "_ROWS", [*table.rows(), example.ROW])
    with App(load(None, identity("pattern:bars", f"numbers:{tmp_path}", 64, 48))):
        soon(lambda: (tmp_path / "000001.png").exists())
    with Image.open(tmp_path / "000000.png") as picture:
        assert picture.size[0] > 0
