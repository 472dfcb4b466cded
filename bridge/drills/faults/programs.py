"""Cases with whole programs, as a user starts them: killed as a group, twice at once, with little shared memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bridge.bench.peers import Receiver, SleepProbe, longest_gap_ms
from bridge.bootstrap import ROOT
from bridge.control.osc.packet import build
from bridge.drills.faults.drill import SETTLE_S, Outcome, wait_for
from bridge.drills.start import descendants_of, free_port
from engine.control import PREFIX

FPS = 30
QUIET_S = 3.0
SHARED_MIB = 64
SHOW_S = 12.0
"""How long the program with little shared memory is watched while it records."""

GONE_S = 10.0


@dataclass(frozen=True, slots=True)
class ProgramCase:
    """One case; `run` is given an empty folder. `missing` as in `Case`."""

    name: str
    run: Callable[[Path], Outcome]
    missing: Callable[[], str] = lambda: ""


class Program:
    """`tidecast run` in a process group of its own.

    Args:
        folder: of its stored state and recordings.
        output: address of its output.
        size: of the model, such as `320x176`.
        before: what to put before the command.
    """

    def __init__(self, folder: Path, output: str, size: str = "320x176", before: tuple[str, ...] = ()) -> None:
        self.osc_port, self.web_port = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        settings = {
            "process.kind": "identity",
            "storage.state_dir": folder,
            "storage.record_dir": folder,
            "web.announce": "false",
            "output.fps": FPS,
        }
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        ports = ["--osc-port", str(self.osc_port), "--web-port", str(self.web_port)]
        command = [*before, sys.executable, "-m", "bridge", "run", "--plain", "--input", "pattern:counter"]
        command += ["--output", output, "--size", size, *ports, *sets]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    @property
    def text(self) -> str:
        """What it has printed."""
        return "".join(self.lines)

    def until_running(self) -> None:
        """Wait for the state "running".

        Raises:
            EngineError: if it ended or never came.
        """

        def running() -> bool:
            return any(line.startswith("running") for line in self.lines)

        wait_for(lambda: running() or self.process.poll() is not None, f"the program did not run:\n{self.text}")
        wait_for(running, f"the program ended:\n{self.text}", 1.0)

    def send(self, address: str, *args: Any) -> None:
        """Send one OSC message."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet:
            outlet.sendto(build(PREFIX + address, args), ("127.0.0.1", self.osc_port))

    def controls(self) -> dict[str, Any]:
        """Every control's value, from the page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/api/state", timeout=5.0) as answer:
            state = json.load(answer)
        return {name: value[0] for name, value in state["controls"].items()}

    def holds(self, **wanted: Any) -> bool:
        """Whether these controls have these values."""
        try:
            now = self.controls()
        except OSError:
            return False
        return all(now[n] == v if isinstance(v, str) else abs(now[n] - v) < 1e-3 for n, v in wanted.items())

    def kill_group(self) -> None:
        """SIGKILL to every process of its group."""
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10.0)
        self.kill_group()


@contextlib.contextmanager
def _watched(output: str) -> Iterator[Callable[[str, bool, float, str], Outcome]]:
    """Watch an output; gives a function that makes the outcome: (case, controls kept, recovery in s, reported).

    What the machine itself does to the output is measured for `QUIET_S` before.
    """
    with SleepProbe() as probe, Receiver(output) as receiver:
        wait_for(lambda: bool(receiver.take()), f"nothing came from {output}")
        receiver.take()
        time.sleep(QUIET_S)
        quiet_ms = longest_gap_ms(receiver.take()) - 1000.0 / FPS
        probe.take()

        def outcome(case: str, kept: bool, recovery_s: float, reported: str) -> Outcome:
            gap_ms = longest_gap_ms(receiver.take())
            return Outcome(case, gap_ms, gap_ms, 0.0, 0.0, max(quiet_ms, probe.take()), recovery_s, kept, reported)

        yield outcome


def killed_and_started_again(name: str, group: bool, folder: Path) -> Outcome:
    """The program is killed, alone or with its group: its processes end, and the next start has what was stored."""
    output = f"ndi:Tidecast drill {os.getpid()} killed"
    with Program(folder, output) as first:
        first.until_running()
        first.send("/mix", 0.25)
        first.send("/prompt/1", "kept")
        wait_for(lambda: first.holds(mix=0.25, prompt_1="kept"), "the controls were not set")
        first.send("/snapshot/save", 3)
        wait_for((folder / "snapshots.json").exists, "the snapshot was not written")
        family, memory = descendants_of(first.process.pid)
        if group:
            first.kill_group()
        else:
            first.process.kill()
            first.process.wait()
        began = time.monotonic()
        _, alive = psutil.wait_procs(family, timeout=GONE_S)
    with Program(folder, output) as second:
        second.until_running()
        recovery_s = time.monotonic() - began
        with _watched(output) as outcome:
            second.send("/snapshot/recall", 3)
            wait_for(lambda: second.holds(mix=0.25, prompt_1="kept"), "the stored controls did not come back", 10.0)
            time.sleep(SETTLE_S)
            left = [str(process) for process in alive] + sorted(name for name in memory if Path(name).exists())
            return outcome(name, not left, recovery_s, f"left: {', '.join(left)}" if left else "")


def two_at_once(name: str, folder: Path) -> Outcome:
    """Two programs with one folder of stored state: neither loses what the other stores, and neither output pauses."""
    output = f"ndi:Tidecast drill {os.getpid()} first"
    stored = folder / "snapshots.json"
    with Program(folder, output) as first:
        first.until_running()
        with _watched(output) as outcome, Program(folder, "null:") as second:
            second.until_running()
            for number in range(1, 11):
                first.send("/snapshot/save", number)
                second.send("/snapshot/save", 10 + number)
            numbers = {str(number) for number in range(1, 21)}

            def whole() -> bool:
                return stored.exists() and numbers <= set(json.loads(stored.read_text("utf-8"))["snapshots"])

            kept = True
            try:
                wait_for(whole, "snapshots are missing", 10.0)
            except Exception:
                kept = False
            return outcome(name, kept, 0.0, "")


def little_shared_memory(name: str, folder: Path) -> Outcome:
    """As in a container: at 1280x720, recording."""
    script = f'mount -t tmpfs -o size={SHARED_MIB}m tmpfs /dev/shm && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", script, "sh")
    output = f"ndi:Tidecast drill {os.getpid()} small"
    with Program(folder, output, "1280x720", before) as program:
        program.until_running()
        with _watched(output) as outcome:
            program.send("/record", True)
            program.send("/record/input", True)
            wait_for(lambda: len(_written(folder)) == 2, "input and output were not recorded")
            time.sleep(SHOW_S)
            program.send("/mix", 0.25)
            wait_for(lambda: program.holds(mix=0.25), "the controls are not obeyed", 10.0)
            said = [line for line in program.lines if re.search("memory", line)]
            return outcome(name, program.process.poll() is None, 0.0, "; ".join(said)[:200])


def _written(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.mp4") if path.stat().st_size]


def _no_namespace() -> str:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "Needs Linux with unshare."
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True)
    return "" if tried.returncode == 0 else "Needs root, to put a small file system over /dev/shm."


def _no_groups() -> str:
    return "This system has no process groups." if sys.platform == "win32" else ""


def _case(name: str, run: Callable[[str, Path], Outcome], missing: Callable[[], str] = lambda: "") -> ProgramCase:
    return ProgramCase(name, lambda folder: run(name, folder), missing)


PROGRAM_CASES = (
    _case("whole group killed", lambda name, folder: killed_and_started_again(name, True, folder), _no_groups),
    _case("program killed alone", lambda name, folder: killed_and_started_again(name, False, folder), _no_groups),
    _case("two instances at once", two_at_once, _no_groups),
    _case(f"{SHARED_MIB} MB of shared memory", little_shared_memory, _no_namespace),
)
