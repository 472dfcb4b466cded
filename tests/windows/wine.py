"""Runs programs under Wine, in the system or in the folder with another Debian."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.bootstrap import ROOT

DISPLAY = ":97"

INSIDE = """
for folder in /proc /dev /sys /tmp "$CHECKOUT" "$CACHE"; do mkdir -p "$DEBIAN$folder"; done
mount --bind /proc "$DEBIAN/proc" && mount --rbind /dev "$DEBIAN/dev" && mount --bind /sys "$DEBIAN/sys"
mount --bind /tmp "$DEBIAN/tmp" && mount --bind "$CHECKOUT" "$DEBIAN$CHECKOUT"
mount --bind "$CACHE" "$DEBIAN$CACHE"
exec chroot "$DEBIAN" sh -c 'cd "$CHECKOUT" && exec "$@"' run "$@"
"""
"""Mounts, seen by this program alone, what it needs of this system. The shell keeps its process id for the program."""

CUT_OFF = "ip link set lo up && "
"""In a network of its own there is only loopback, and it is down."""


class CannotPrepare(Exception):
    """What the run under Wine needs is not here and cannot be made; says why."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit code (124: it ran too long and was killed), and all it printed."""

    code: int
    output: str


@dataclass(frozen=True, slots=True)
class Wine:
    """Wine with its folders; see `prepare`."""

    cache: Path
    debian: Path | None

    @property
    def python(self) -> str:
        """Windows' Python, with the tests and all libraries."""
        return str(self.cache / "python" / "python.exe")

    def command(self, *words: str, network: bool = True) -> list[str]:
        """The command that runs a program of Wine or, for a path, of Windows.

        Args:
            words: the program and its arguments.
            network: whether it has the network; else only loopback of its own.
        """
        program = ["wine", *words] if words[0].endswith(".exe") or words[0] == "cmd" else list(words)
        shut = ["--net"] if not network else []
        if self.debian is None:
            return [*(["unshare", *shut, "sh", "-c", CUT_OFF + 'exec "$@"', "run"] if shut else []), *program]
        script = (CUT_OFF if shut else "") + INSIDE
        return ["unshare", "--mount", "--propagation", "private", *shut, "sh", "-c", script, "run", *program]

    def environment(self) -> dict[str, str]:
        """The variables for it."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "DISPLAY": DISPLAY,
            "WINEPREFIX": str(self.cache / "prefix"),
            "WINEDEBUG": "-all",
            "DEBIAN": str(self.debian or ""),
            "CHECKOUT": str(ROOT),
            "CACHE": str(self.cache),
            "KMP_TOPOLOGY_METHOD": "flat",  # Wine lacks GetNumaNodeProcessorMaskEx, which OpenMP's own method calls
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *words: str, network: bool = True, **more: str) -> subprocess.Popen[str]:
        """Start a program; what it prints can be read from its `stdout`.

        Args:
            words, network: see `command`.
            more: further variables.
        """
        return subprocess.Popen(
            self.command(*words, network=network),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=ROOT,
            env=self.environment() | more,
            start_new_session=True,
        )

    def run(self, *words: str, timeout_s: float, network: bool = True, **more: str) -> Ended:
        """Run a program to its end, or for `timeout_s`."""
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            process = subprocess.Popen(
                self.command(*words, network=network),
                stdin=subprocess.DEVNULL,
                stdout=log,  # not a pipe: programs that it leaves behind would keep it open
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self.environment() | more,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                end(process)
                code = 124
            log.seek(0)
            return Ended(code, log.read())

    @contextlib.contextmanager
    def screen(self) -> Iterator[None]:
        """The X server and Wine's server, which both stay for all programs, so that each starts faster."""
        screen = self.start("Xvfb", DISPLAY, "-screen", "0", "640x480x24", "-nolisten", "tcp")
        server = self.start("wineserver", "-f", "-p")
        time.sleep(1.0)
        try:
            yield
        finally:
            self.run("wineserver", "-k", timeout_s=30.0)
            for process in (server, screen):
                end(process)


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill a program and what is left of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
