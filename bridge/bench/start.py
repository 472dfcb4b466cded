"""`tidecast bench start`: starts and stops many times, in one process and as a command; says what is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bridge.app import App
from bridge.bench.overhead import wait_until_running
from bridge.bench.report import say
from bridge.config import AppConfig, load
from engine.errors import EngineError

FIRST = 3
"""Starts that are not counted: libraries are loaded, pools are filled."""

READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Left:
    """What a process holds between two starts."""

    threads: int
    handles: int
    children: int
    shared: int


def held() -> Left:
    """What this process holds now; `shared` counts its mappings of shared memory, where one can see."""
    process = psutil.Process()
    maps = Path("/proc/self/maps")
    shared = maps.read_text().count("/dev/shm/") if maps.exists() else 0
    handles = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    children = [c for c in process.children() if "resource_tracker" not in " ".join(c.cmdline())]
    return Left(threading.active_count(), handles, len(children), shared)


def in_process(config: AppConfig, times: int) -> tuple[Left, Left]:
    """Start and stop in this process; what is held after the first few and after the last."""
    app = App(config)
    first = held()
    for number in range(FIRST + times):
        app.start()
        if number % 10 == 0:
            wait_until_running(app)
        app.stop()
        if number == FIRST - 1:
            first = held()
    return first, held()


def as_command(arguments: list[str], times: int) -> list[float]:
    """Start the command and end it by SIGINT when it shows a picture; seconds that each end took.

    Raises:
        EngineError: it did not start, did not end, or ended with an error.
    """
    took = []
    for _ in range(times):
        command = [sys.executable, "-m", "bridge", "run", "--plain", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith(("running", "loading")):
                    break
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            try:
                rest, _ = process.communicate(timeout=READY_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise EngineError("The command did not end.", "".join(lines)) from None
            took.append(time.monotonic() - began)
            if process.returncode != 0:
                raise EngineError(f"The command ended with {process.returncode}.", "".join(lines) + rest)
    return took


def start(
    times: Annotated[int, typer.Option(help="Starts in one process.")] = 50,
    commands: Annotated[int, typer.Option(help="Starts as a command.")] = 20,
    output: Annotated[str, typer.Option(help="Where the picture goes.")] = "ndi:Tidecast bench start",
) -> None:
    """Start and stop 50 times in one process and 20 times as a command; exit code 1 if anything is left behind."""
    settings: dict[str, Any] = {"process.kind": "identity", "output.uri": output, "osc.port": 0, "web.port": 0}
    first, last = in_process(load(None, settings), times)
    options = ["--output", output, "--osc-port", "0", "--web-port", "0", "--set", "process.kind=identity"]
    took = as_command(options, commands)
    passed = first == last
    say(
        f"{times} starts in one process, {commands} as a command",
        [
            *((name, f"{a} -> {b}") for (name, a), b in zip(asdict(first).items(), asdict(last).values(), strict=True)),
            ("slowest end of the command", f"{max(took, default=0.0):.1f} s"),
            ("passed", "yes" if passed else "NO"),
        ],
        {"first": asdict(first), "last": asdict(last), "ends_s": took, "passed": passed},
    )
    raise typer.Exit(0 if passed else 1)
