"""`tidecast bench start`: starts and stops many times, in one process and as a command; reports what is left behind.

Every start uses the same output name and the same ports, so the benchmark fails if one of them was not released.
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
"""Starts before the first count: they load libraries and fill pools."""

READY_S = 60.0
GONE_S = 10.0
"""Longest time for the processes that the command started to end after it."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds between two starts: threads, handles, child processes, mappings of shared memory."""

    threads: int
    handles: int
    children: int
    shared: int


def held() -> Resources:
    """What this process holds now; `shared` is 0 where mappings cannot be read (outside Linux)."""
    process = psutil.Process()
    maps = Path("/proc/self/maps")
    shared = len(re.findall(r"/dev/shm/|/memfd:tidecast", maps.read_text())) if maps.exists() else 0
    handles = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    children = [c for c in process.children() if "resource_tracker" not in " ".join(c.cmdline())]
    return Resources(threading.active_count(), handles, len(children), shared)


def in_process(config: AppConfig, times: int) -> tuple[Resources, Resources]:
    """Start and stop in this process; returns what is held after the first few starts and after the last."""
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
    """Start the command and end it by SIGINT, by turns while it loads and while it runs.

    Returns:
        The time that each end took, in s.

    Raises:
        EngineError: if it did not start or end, ended with an error, or left processes or shared memory behind.
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
            descendants, memory = descendants_of(process.pid)
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
        _, alive = psutil.wait_procs(descendants, timeout=GONE_S)
        left = [f"process {p.pid}" for p in alive] + sorted(name for name in memory if Path(name).exists())
        if left:
            raise EngineError(f"The command left behind: {', '.join(left)}.", "".join(lines) + rest)
    return took


def descendants_of(pid: int) -> tuple[list[psutil.Process], set[str]]:
    """The processes that a process started, and the files of shared memory that these map (on Linux)."""
    descendants: list[psutil.Process] = []
    memory: set[str] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        descendants = psutil.Process(pid).children(recursive=True)
    for one in (pid, *(p.pid for p in descendants)):
        with contextlib.suppress(OSError):
            memory |= set(re.findall(r"/dev/shm/\S+", Path(f"/proc/{one}/maps").read_text()))
    return descendants, memory


def free_port(kind: socket.SocketKind) -> int:
    """A port that is free on loopback now."""
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
