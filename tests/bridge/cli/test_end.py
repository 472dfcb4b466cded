"""The command ends although a process is left that cannot be ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, signal, sys, time

def stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    left.send(0)
    time.sleep(600)

if __name__ == "__main__":
    from bridge.cli import main
    ours, left = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=stay, daemon=True)
    process.start()
    ours.recv()
    print(process.pid, flush=True)
    main.end({code})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize(("code", "status"), [("None", 0), ("0", 0), ("2", 2), ("'text'", 1)])
def test_the_end_does_not_wait_for_a_process_that_is_left(tmp_path: Path, code: str, status: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(code=code))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment) as ended:
        assert ended.stdout is not None
        left = int(ended.stdout.readline())
        try:
            assert ended.wait(60) == status
        finally:
            os.kill(left, 9)
