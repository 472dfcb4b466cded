"""The examples run."""

from __future__ import annotations

import runpy
import socket
from pathlib import Path

from PIL import Image

from bridge.control.osc.packet import parse
from bridge.table import TABLE

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_embed(tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLES / "embed.py"))["main"](str(tmp_path / "out.png"), 13)
    assert Image.open(tmp_path / "out.png").size == (1024, 256)


def test_osc_says_when_nobody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        assert runpy.run_path(str(EXAMPLES / "osc.py"))["main"](silent.getsockname()[1]) is None


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
