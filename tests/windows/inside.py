"""Whole programs that are started and watched by Windows' own Python: `python.exe -m tests.windows.inside NAME`.

Each prints one line with its figure and ends with code 0, or ends with a traceback.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil

from bridge.control.osc.packet import build
from bridge.video.base import Options
from bridge.video.opening import open_sink, open_source
from engine.frame import Frame, PixelFormat

MAIN = "from bridge.cli.main import main; main()"
BEGAN = time.monotonic()
READY_S = 400.0
GONE_S = 120.0
COLOUR = (200, 100, 50, 90)


class Program:
    """`tidecast` as a process of its own."""

    def __init__(
        self, command: str, *arguments: str, web_port: int = 0, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.osc_port, self.web_port = free_port(socket.SOCK_DGRAM), web_port or free_port(socket.SOCK_STREAM)
        words = [sys.executable, "-u", "-c", MAIN, command, "--plain"]
        words += [] if "--output" in arguments else ["--output", "null:"]
        words += ["--osc-port", str(self.osc_port), "--web-port", str(self.web_port), "--set", "web.announce=false"]
        words += ["--set", "process.hang_seconds=60", *arguments]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | dict(environment),
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def text(self) -> str:
        """What it has printed."""
        return "".join(self.lines)

    def until(self, wanted: str) -> None:
        """Wait for a line with this regular expression."""
        wait(lambda: any(re.search(wanted, line) for line in self.lines), self, f"no line {wanted!r}")
        print(f"{time.monotonic() - BEGAN:.1f} s: {wanted}", flush=True)

    def children(self) -> list[psutil.Process]:
        """Every process of Tidecast that it has started; Wine itself starts its desktop as a child of the first one."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in found if process.name().startswith("python")]

    def state(self) -> dict[str, Any]:
        """What its page tells."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/api/state", timeout=20.0) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def interrupt(self) -> int:
        """End it by Ctrl+C, which reaches every program of the console; returns its exit code."""
        if sys.platform == "win32":
            assert ctypes.windll.kernel32.GenerateConsoleCtrlEvent(signal.CTRL_C_EVENT, 0)
        code = self.process.wait(GONE_S)
        print(f"{time.monotonic() - BEGAN:.1f} s: ended with {code}", flush=True)
        return code


def wait(happened: Callable[[], bool], program: Program, otherwise: str) -> None:
    """Wait until something has happened, as long as the program runs."""
    deadline = time.monotonic() + READY_S
    while not happened():
        assert time.monotonic() < deadline and program.process.poll() is None, f"{otherwise}:\n{program.text}"
        time.sleep(0.05)


def gone(processes: list[psutil.Process]) -> float:
    """Wait until processes have ended; returns how long that took, in s."""
    began = time.monotonic()
    _, alive = psutil.wait_procs(processes, timeout=GONE_S)
    assert not alive, f"left behind: {alive}"
    return time.monotonic() - began


def free_port(kind: socket.SocketKind) -> int:
    """A port that is free on loopback now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def demo() -> str:
    """A minute of `tidecast demo`, with its model."""
    began = time.monotonic()
    program = Program("demo")
    program.until("^running")
    ready_s = time.monotonic() - began
    time.sleep(60.0)
    last = [line for line in program.lines if line.startswith("running")][-1].strip()
    assert "Traceback" not in program.text and "ERROR" not in program.text, program.text
    children = program.children()
    assert program.interrupt() == 0, program.text
    gone(children)
    return f"running after {ready_s:.0f} s; after a minute: {last}"


def terminated() -> str:
    """`TerminateProcess` on the bridge: engine and page end, and the ports are free at once."""
    program = Program("run", "--input", "pattern:bars", "--set", "process.kind=identity")
    program.until("^running")
    children = program.children()
    assert len(children) >= 2, children
    program.process.kill()
    took_s = gone(children)
    again = Program("run", "--input", "pattern:bars", "--set", "process.kind=identity", web_port=program.web_port)
    again.until("^running")
    assert again.interrupt() == 0, again.text
    return f"{len(children)} processes gone after {took_s:.1f} s; started again at the same port"


def ctrl_c() -> str:
    """Ctrl+C while it loads and while it runs ends everything in order. Wine's C library knows no Ctrl+Break."""
    for moment, later_s in (("OSC on", 0.0), ("OSC on", 0.2), ("OSC on", 0.5), ("OSC on", 1.0), ("^running", 0.0)):
        program = Program("run", "--input", "pattern:bars", "--set", "process.kind=identity")
        program.until(moment)
        time.sleep(later_s)  # processes are started one after another
        children = program.children()
        code = program.interrupt()
        gone(children)
        time.sleep(0.2)
        assert code == 0 and "Traceback" not in program.text and "ERROR" not in program.text, (code, program.text)
    return "exit code 0, nothing left"


def twice() -> str:
    """A second one at the same port says so and ends."""
    first = Program("run", "--input", "pattern:bars", "--set", "process.kind=identity")
    first.until("^running")
    second = Program("run", "--input", "pattern:bars", "--set", "process.kind=identity", web_port=first.web_port)
    code = second.process.wait(READY_S)
    wait(lambda: second.text.endswith("\n"), first, "nothing said")
    assert code == 2 and "already in use" in second.text, (code, second.text)
    assert first.interrupt() == 0, first.text
    return next(line.strip() for line in second.lines if "already in use" in line)


def nothing_writable() -> str:
    """A profile that cannot be written, and a terminal with code page 437: it runs, and says what it cannot keep."""
    with tempfile.TemporaryDirectory() as folder:
        shut = Path(folder) / "shut"
        shut.write_text("")  # below a file there is no folder; as root, a folder would not be shut
        places = ("--set", f"storage.state_dir='{shut / 'state'}'", "--set", f"storage.record_dir='{shut / 'videos'}'")
        environment = {"PYTHONIOENCODING": "cp437", "TIDECAST_CACHE": str(shut / "cache")}
        words = ("run", "--input", "pattern:bars", "--prompt", "é ● 日本", "--set", "process.kind=identity", *places)
        program = Program(*words, environment=environment)
        program.until("^running")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet:
            for address, value in (("/tidecast/record", 1), ("/tidecast/snapshot/save", 3)):
                outlet.sendto(build(address, [value]), ("127.0.0.1", program.osc_port))
        program.until("snapshot.* cannot be written")
        program.until("not recorded")
        assert program.state()["controls"]["prompt_1"][0] == "é ● 日本"
        assert program.interrupt() == 0 and "Traceback" not in program.text, program.text
    return "runs; says that the snapshot and the recording could not be written; exit code 0"


def spout() -> str:
    """An output over Spout: listed with its size, its name taken for a second one, free again however it ended."""
    import SpoutGL

    name, names = "Théâtre 日本", SpoutGL.SpoutReceiver()
    words = ("run", "--input", "pattern:bars", "--set", "process.kind=identity", "--output", f"spout:{name}")
    first = Program(*words)
    first.until("^running")
    assert name in names.getSenderList(), names.getSenderList()
    wait(lambda: names.getSenderInfo(name).width > 16, first, "the size of the picture is not in the list")
    size = names.getSenderInfo(name)
    second = Program(*words)
    code = second.process.wait(READY_S)
    wait(lambda: second.text.endswith("\n"), first, "nothing said")
    assert code == 2 and "already called" in second.text, (code, second.text)
    children = first.children()
    first.process.kill()
    first.process.wait()
    gone(children)
    again = Program(*words)
    again.until("^running")
    assert names.getSenderList() == [name], names.getSenderList()
    assert again.interrupt() == 0, again.text
    assert names.getSenderList() == [], names.getSenderList()
    return f"listed as {size.width}x{size.height}; a second one is refused; name free after TerminateProcess and Ctrl+C"


def twenty_starts() -> str:
    """Twenty starts in one process: threads, handles and processes stay the same."""
    from bridge.config_file import load
    from bridge.drills.start import in_process

    settings = {
        "process.kind": "identity",
        "output.uri": "null:",
        "osc.port": free_port(socket.SOCK_DGRAM),
        "web.port": free_port(socket.SOCK_STREAM),
        "web.announce": False,
    }
    began = time.monotonic()
    first, last = in_process(load(None, settings), 20)
    assert last.threads <= first.threads and last.children <= first.children, (first, last)
    assert last.handles <= first.handles + 20, (first, last)
    children = [child.name() for child in psutil.Process().children()]
    assert not [name for name in children if "python" in name.lower()], children  # Wine starts programs of its own
    took_s = time.monotonic() - began
    return (
        f"{took_s:.0f} s; threads {first.threads} to {last.threads}, no process left "
        f"(of Wine: {', '.join(children) or 'none'})"
    )


def flood() -> str:
    """Twenty thousand OSC messages; the last one of each address is in force, and the page still answers."""
    program = Program("run", "--input", "pattern:bars", "--set", "process.kind=identity")
    program.until("^running")
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet:
        for number in range(20_000):
            outlet.sendto(build("/tidecast/strength", [number / 20_000]), ("127.0.0.1", program.osc_port))
        took_s = time.monotonic() - began

        def in_force() -> bool:
            """Whether the last value is; sent again, because a system whose buffer is full drops what comes next."""
            outlet.sendto(build("/tidecast/strength", [0.25]), ("127.0.0.1", program.osc_port))
            return abs(program.state()["controls"]["strength"][0] - 0.25) < 1e-3

        wait(in_force, program, "the last value is not in force")
    assert program.interrupt() == 0, program.text
    return f"20000 messages in {took_s:.1f} s, the last in force"


def engine_fault(case: str) -> str:
    """One case of the fault drill; see `tidecast bench faults`."""
    words = [sys.executable, "-c", MAIN, "bench", "faults", "--model", "identity", "--only", case]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    line = next((line for line in done.stdout.splitlines() if "longest gap" in line), "")
    assert line and done.returncode == 0, done.stdout
    return line.strip()


def ndi_in() -> str:
    """Receive the colour with alpha that a program on Linux sends."""
    with open_source("ndi:tidecast wine alpha in", Options()) as source:
        frame = _first(source)
    pixel = frame.pixels[20, 20]
    order = [2, 1, 0, 3] if frame.format is PixelFormat.BGRA else [0, 1, 2, 3]
    got = pixel[order].astype(int)
    assert np.abs(got - np.asarray(COLOUR)).max() <= 8, (frame.format, pixel)
    return f"{frame.width}x{frame.height}, sent {COLOUR}, received {tuple(int(value) for value in got)}"


def _first(source: Any) -> Frame:
    deadline = time.monotonic() + READY_S
    while (frame := source.read(0.2)) is None:
        assert time.monotonic() < deadline, source.problem
    found: Frame = frame
    return found


def ndi_out() -> str:
    """Send a colour until this process is ended."""
    with open_sink("ndi:tidecast wine out", Options()) as sink:
        picture = np.full((192, 320, 3), COLOUR[:3], np.uint8)
        number, end = 0, time.monotonic() + READY_S
        while time.monotonic() < end:
            sink.send(Frame(picture, seq=number))
            number += 1
            time.sleep(1 / 25)
    return f"{number} frames"


PROGRAMS: dict[str, Callable[[], str]] = {
    program.__name__: program
    for program in (demo, terminated, ctrl_c, twice, nothing_writable, spout, twenty_starts, flood, ndi_in, ndi_out)
} | {
    "engine_killed": functools.partial(engine_fault, "engine killed ("),
    "engine_hangs": functools.partial(engine_fault, "engine hangs"),
    "engine_out_of_memory": functools.partial(engine_fault, "engine out of memory"),
}

if __name__ == "__main__":
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ctypes.windll.kernel32.FreeConsole()  # the one that Wine makes for programs of Linux hands on no Ctrl+C
        ctypes.windll.kernel32.AllocConsole()
    print(PROGRAMS[sys.argv[1]]())
