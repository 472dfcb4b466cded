"""The web process as the bridge sees it: its token, a port that is taken, and what it keeps out of the bridge."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bridge.web.launcher import WebProcess
from engine.errors import PortInUseError
from tests.support.web_stage import SIZE, Stage


def test_a_new_token_each_time_unless_given() -> None:
    tokens = set()
    for _ in range(2):
        with Stage(host="0.0.0.0") as stage:
            tokens.add(stage.web.token)
    assert len(tokens) == 2 and all(len(t) >= 16 for t in tokens)


def test_a_taken_port_is_named() -> None:
    with Stage() as stage:
        second = WebProcess(stage.store, stage.telemetry, *SIZE, port=stage.web.port)
        with pytest.raises(PortInUseError, match=str(stage.web.port)):
            second.start()
        second.stop()


def test_the_web_framework_stays_out_of_the_bridge_process() -> None:
    code = "import sys, bridge.web.launcher; print(sorted({'starlette', 'uvicorn', 'PIL', 'torch'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
