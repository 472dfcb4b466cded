"""Ctrl+C and SIGTERM to the whole process group end the program in order: no traceback, no engine that failed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from bridge.ipc import group_signals

WAIT_S = 120.0
ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups of this kind")

PROGRAM = """
from bridge.ipc import group_signals

group_signals.GRACE_S = {grace_s}

if __name__ == "__main__":
    from bridge.cli.main import main
    main()
"""


class Group:
    """`tidecast run` in a process group of its own.

    Args:
        program: file to write the program to; every process that it starts reads it too.
        arguments: of the command.
        grace_s: how long a process waits for the bridge process when it is asked to end, in s.
    """

    def __init__(self, program: Path, arguments: Sequence[str], grace_s: float) -> None:
        program.write_text(PROGRAM.format(grace_s=grace_s))
        command = [sys.executable, str(program), "run", "--plain", "--osc-port", "0", "--web-port", "0"]
        command += ["--input", "pattern:bars", "--output", "null:", "--size", "64x64", *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.log: list[str] = []

    def until(self, text: str) -> None:
        """Read what it writes until a line holds `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if text in line:
                return
        raise AssertionError(f"it ended without {text!r}: {''.join(self.log)}")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def ends_in_order(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, and wait for its end."""
        processes = self.children()
        os.killpg(self.process.pid, number)
        rest, _ = self.process.communicate(timeout=WAIT_S)
        log = "".join(self.log) + rest
        assert self.process.returncode == 0, log
        for trace in ("Traceback", "ERROR", "ended by itself", "asked to end", "died", "Lost", "rank"):
            assert trace not in log, log
        psutil.wait_procs(processes, timeout=WAIT_S)
        assert [process for process in processes if process.is_running()] == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Group]]:
    groups: list[Group] = []

    def begin(arguments: Sequence[str], grace_s: float = group_signals.GRACE_S) -> Group:
        groups.append(Group(tmp_path / "program.py", arguments, grace_s))
        return groups[-1]

    yield begin
    for group in groups:
        group.kill()


IDENTITY = ["--set", "process.kind=identity"]
PIPELINE = ["--model", "wan21-tiny", "--set", 'engine.devices=["cpu","cpu"]']


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_the_group_ends_in_order_while_it_starts(start: Callable[..., Group], number: signal.Signals) -> None:
    group = start(IDENTITY)
    deadline = time.monotonic() + WAIT_S
    while not group.children():  # the first of them is just starting Python
        assert time.monotonic() < deadline and group.process.poll() is None
        time.sleep(0.001)
    group.until("OSC on")
    group.ends_in_order(number)


@pytest.mark.parametrize(
    ("arguments", "number"),
    [(IDENTITY, signal.SIGINT), (PIPELINE, signal.SIGTERM)],
    ids=["identity-SIGINT", "pipeline-SIGTERM"],
)
def test_the_group_ends_in_order_while_it_runs(
    start: Callable[..., Group], arguments: list[str], number: signal.Signals
) -> None:
    group = start(arguments)
    group.until("running ")
    group.ends_in_order(number)


def test_an_engine_that_is_asked_to_end_alone_is_replaced(start: Callable[..., Group]) -> None:
    group = start(IDENTITY, grace_s=0.5)
    group.until("running ")
    asked = [process for process in group.children() if "spawn_main" in " ".join(process.cmdline())]
    for process in asked:  # the engine and the page's
        process.terminate()
    group.until("asked to end (SIGTERM)")
    group.until("running ")
    psutil.wait_procs(asked, timeout=WAIT_S)
    assert [process for process in asked if process.is_running()] == []


HELD = """
import multiprocessing, signal
from bridge.ipc.start_process import start_process

def main(theirs) -> None:
    theirs.send(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    for _ in range(2):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=main, args=(theirs,), daemon=True)
        start_process(process)
        print(*ours.recv())
        process.join()
"""


def test_the_signals_are_held_back_in_the_first_process_too(tmp_path: Path) -> None:
    """With the first one, multiprocessing starts its resource tracker, and unblocks both signals after that."""
    program = tmp_path / "program.py"
    program.write_text(HELD)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, env=environment, timeout=WAIT_S
    )
    assert ended.stdout.split("\n") == [f"{signal.SIGINT:d} {signal.SIGTERM:d}"] * 2 + [""], ended.stderr


def test_the_signals_are_held_back_only_meanwhile() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with group_signals.held_back():
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= {signal.SIGINT, signal.SIGTERM}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
