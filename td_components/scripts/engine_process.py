"""Starts Tidecast as a process of its own, and ends it with all its child processes.

Needs neither TouchDesigner nor OSC; Python 3.11 without packages. The process does not inherit the variables that
TouchDesigner sets for its own Python, opens no window, and writes to a log file, which `Engine.lines` reads.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRACE = 10.0
"""Seconds after the OSC message until the process is killed."""

LONGEST_READ = 65536

RUNNING = {}
"""Engines by the id of the component that started them; survives when the extension is re-initialised."""


def clean_environment(environment):
    """A copy without PYTHON* (TouchDesigner's own Python must not leak into the engine's)."""
    kept = {k: v for k, v in environment.items() if not k.upper().startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def places(folder):
    """Places to look for the program tidecast, best first; `folder` is that of the project."""
    script = "Scripts/tidecast.exe" if os.name == "nt" else "bin/tidecast"
    home = Path.home()
    for base in (Path(folder), Path(folder) / "tidecast", home / "tidecast", home / "Tidecast"):
        yield base / ".venv" / script
    if os.name == "nt":
        yield home / ".local" / "bin" / "tidecast.exe"
    else:
        for base in (home / ".local", Path("/opt/homebrew"), Path("/usr/local")):
            yield base / "bin" / "tidecast"


def command(executable, folder):
    """The command that runs Tidecast. Raises FileNotFoundError, which says what to do, if it is not found."""
    if executable:
        path = Path(executable).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there. Choose the program tidecast at Executable.")
        if path.stem.lower().startswith("python"):
            return [str(path), "-m", "bridge"]
        return [str(path)]
    for place in places(folder):
        if place.is_file():
            return [str(place)]
    found = shutil.which("tidecast")
    if found:
        return [found]
    raise FileNotFoundError(
        "Tidecast was not found on this machine. Install it (its README says how), then choose the program "
        "tidecast at Executable."
    )


def split(arguments):
    """Split the text of the parameter Arguments into words; backslashes are kept, for Windows paths."""
    lexer = shlex.shlex(arguments, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.escape = ""
    lexer.commenters = ""
    return list(lexer)


class Engine:
    """One started process.

    Args:
        words: program and arguments.
        environment: the caller's; variables of its Python are removed here.
        log: path of the file that the process writes to.
    """

    def __init__(self, words, environment, log):
        self.words = words
        self.log = Path(log)
        self.asked_at = None
        self._read = 0
        self._rest = b""
        flags = {}
        if os.name == "nt":
            flags["creationflags"] = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        else:
            flags["start_new_session"] = True
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment(environment),
                **flags,
            )

    @property
    def running(self):
        """Whether the process is alive."""
        return self.process.poll() is None

    def status(self):
        """The text of the parameter Process."""
        code = self.process.poll()
        if code is None:
            return "stopping" if self.asked_at is not None else f"running ({self.process.pid})"
        return "stopped" if code == 0 or self.asked_at is not None else f"ended with code {code}, see the log"

    def asked(self, now):
        """Remember when the process was asked to stop."""
        if self.asked_at is None:
            self.asked_at = now

    def overdue(self, now):
        """Whether it is still running `GRACE` seconds after it was asked to stop."""
        return self.running and self.asked_at is not None and now - self.asked_at >= GRACE

    def end(self):
        """Kill the process and all its child processes."""
        if os.name == "nt":
            # /T: python.exe of a virtual environment is a launcher, the real interpreter is its child.
            subprocess.run(
                ["taskkill", "/F", "/T", "/PID", str(self.process.pid)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                creationflags=subprocess.CREATE_NO_WINDOW,
                check=False,
            )
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(GRACE)

    def wait(self, seconds):
        """Wait for the process to end; True if it did."""
        limit = time.monotonic() + seconds
        while self.running and time.monotonic() < limit:
            time.sleep(0.05)
        return not self.running

    def lines(self):
        """The complete lines written since the last call."""
        with open(self.log, "rb") as file:
            file.seek(self._read)
            new = file.read(LONGEST_READ)
        self._read += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        return [line.decode("utf-8", "replace").rstrip() for line in whole if line.strip()]


def log_path(port):
    """The log file for the process of the component that listens at `port`."""
    return Path(tempfile.gettempdir()) / f"tidecast-{port}.log"


def platform_name():
    """The system and the Python version, for the report."""
    return f"{sys.platform}, Python {sys.version.split()[0]}"
