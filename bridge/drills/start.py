"""`tidecast bench start`: starts and stops many times, in one process and as a command; says what is left behind.

Every start takes the same output's name and the same ports, so one that was not given back ends the benchmark.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
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
from bridge.config import AppConfig
from bridge.config_file import load
from engine.bench.report import say
from engine.errors import EngineError

FIRST = 3
"""Starts that are not counted: libraries are loaded, pools are filled."""

READY_S = 60.0
GONE_S = 10.0
"""Longest time for the processes that the command started to end after it."""


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
    """Start the command and end it by SIGINT, in turn while it loads and when it runs; seconds that each end took.

    Raises:
        EngineError: it did not start, did not end, ended with an error, or left processes or shared memory behind.
    """
    took = []
    for number in range(times):
        command = [sys.executable, "-m", "bridge", "run", "--plain", *arguments]
        states = ("running",) if number % 2 else ("loading", "running")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            guard = threading.Timer(READY_S, process.kill)
            guard.start()
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith(states):
                    break
            guard.cancel()
            family, memory = _family(process.pid)
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
        _, alive = psutil.wait_procs(family, timeout=GONE_S)
        left = [f"process {p.pid}" for p in alive] + sorted(name for name in memory if Path(name).exists())
        if left:
            raise EngineError(f"The command left behind: {', '.join(left)}.", "".join(lines) + rest)
    return took


def _family(pid: int) -> tuple[list[psutil.Process], set[str]]:
    """The processes that a process started, and the files of all their shared memory, where one can see them."""
    family: list[psutil.Process] = []
    memory: set[str] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(pid).children(recursive=True)
    for one in (pid, *(p.pid for p in family)):
        with contextlib.suppress(OSError):
            memory |= set(re.findall(r"/dev/shm/psm_\w+", Path(f"/proc/{one}/maps").read_text()))
    return family, memory


def free_port(kind: socket.SocketKind) -> int:
    """A port of loopback that is free now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    times: Annotated[int, typer.Option(help="Starts in one process.")] = 50,
    commands: Annotated[int, typer.Option(help="Starts as a command.")] = 20,
    output: Annotated[str, typer.Option(help="Where the picture goes.")] = "ndi:Tidecast bench start",
) -> None:
    """Start and stop 50 times in one process and 20 times as a command; exit code 1 if anything is left behind."""
    osc, web = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    settings: dict[str, Any] = {"process.kind": "identity", "output.uri": output, "osc.port": osc, "web.port": web}
    first, last = in_process(load(None, settings), times)
    options = ["--output", output, "--osc-port", str(osc), "--web-port", str(web), "--set", "process.kind=identity"]
    took = as_command(options, commands)
    passed = first == last
    say(
        f"{times} starts in one process, {commands} as a command",
        [
            *((name, f"{a} -> {b}") for (name, a), b in zip(asdict(first).items(), asdict(last).values(), strict=True)),
            ("slowest end of the command", f"{max(took, default=0.0):.1f} s"),
            ("passed", "yes" if passed else "NO"),
        ],
        [{"first": asdict(first), "last": asdict(last), "ends_s": took, "passed": passed}],
    )
    raise typer.Exit(0 if passed else 1)
