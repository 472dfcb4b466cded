"""A terminal that is gone, a reader that ended, a full disk behind the output: none of them ends the show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import contextlib, multiprocessing, os, sys
from types import SimpleNamespace
from typing import Any
from rich.console import Console
from bridge.cli.status import StatusLine, going_on
from bridge.ipc.start_process import start_process

def main() -> None:
    os._exit(7)

def show(live: bool) -> None:
    console = Console(force_terminal=live)
    bridge: Any = SimpleNamespace(telemetry=SimpleNamespace(snapshot=lambda: {"state": "running"}))
    with going_on(console):
        console.print("introduction")
    with StatusLine(bridge, console, live) as status:
        for _ in range(3):
            status.show()
            status._said_s = float("-inf")

if __name__ == "__main__":
    show("live" in sys.argv)
    with contextlib.suppress(OSError):
        print("what stays in the buffer", file=sys.stderr)
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=main, daemon=True)
        start_process(process)
        process.join()
        assert process.exitcode == 7, process.exitcode
    os.write(int(sys.argv[1]), b"went on")
"""


@pytest.fixture
def broken(request: pytest.FixtureRequest) -> int:
    """A descriptor that cannot be written."""
    if request.param == "full disk":
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full")
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    request.addfinalizer(lambda: os.close(descriptor))
    return descriptor


@pytest.mark.skipif(sys.platform == "win32", reason="passes descriptors")
@pytest.mark.parametrize("live", ["live", "plain"])
@pytest.mark.parametrize("broken", ["full disk", "reader gone"], indirect=True)
def test_the_show_goes_on_and_processes_can_still_be_started(tmp_path: Path, broken: int, live: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    reader, writer = os.pipe()
    root = str(Path(__file__).parents[3])
    ended = subprocess.run(
        [sys.executable, str(program), str(writer), live],
        stdout=broken,
        stderr=broken,
        pass_fds=[writer],
        env=os.environ | {"PYTHONPATH": root},
        timeout=120,
        check=False,
    )
    os.close(writer)
    with os.fdopen(reader) as said:
        assert said.read() == "went on"
    assert ended.returncode == 0
