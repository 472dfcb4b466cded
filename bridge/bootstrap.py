"""Prepares a fresh checkout: virtual environment, libraries, system packages; then restarts in that environment.

Standard library only, because it runs before anything else is installed. It does nothing when the libraries can already
be imported.

Every library has the version and one of the hashes in `bridge/pins`. Torch's GPU builds are in an index of their own;
they have the version alone.

System packages are installed only on Debian, as root and with permission. `TIDECAST_APT=yes` or `no` decides; if it is
not set, the user is asked at the terminal. Without a terminal (CI, a container) starting as root counts as permission,
and the packages are named before they are installed.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST_PYTHON = (3, 11)
UV_TORCH = ("uv", "pip", "install", "--torch-backend")
"""Installs torch in the build for a backend, which torch's makers keep apart from the default one; uv knows where."""

HASHED = ("--no-deps", "--require-hashes")
"""With these, pip installs exactly what the files of pins name."""

PIP_DRIVER = 580
"""The oldest driver for the build that pip installs on Linux (CUDA 13.0); with an older one torch finds no GPU."""

LIBRARIES_GB = {"bridge": 0.9, "tests": 2.0}
"""What the other libraries of each part take on the disk, as measured on Linux."""

PIP_OPTIONS = ("--disable-pip-version-check",)

NEEDED = {
    "bridge": ("torch", "numpy", "typer", "rich", "pydantic", "pythonosc", "NDIlib", "av", "cv2", "sdl2", "starlette"),
    "tests": ("torch", "typer", "pytest", "xdist", "hypothesis", "mido", "cyndilib", "importlinter", "transformers"),
}
"""Modules that `python -m bridge` or `python -m tests` needs; when all are found, nothing is installed."""

EXTRAS = {"bridge": "midi,web,audio", "tests": "wan,midi,web,audio,dev"}
AVAHI = "libavahi-client.so.3"
"""The library with which NDI announces and finds sources on the network; Debian has it in libavahi-client3."""

PORTAUDIO = "libportaudio.so.2"
"""The library of the sound devices, with which a test hears a real one; Debian has it in libportaudio2."""

PROGRAMS = {
    "chromium": "chromium",
    "chromium-driver": "chromedriver",
    "liblo-tools": "oscsend",
    "npm": "npm",
    "xvfb": "Xvfb",
}
"""Debian's packages for the tests, each with the program by which it is found."""

PERMISSION = "TIDECAST_APT"
"""Environment variable: `yes` lets apt-get install system packages without a question, `no` forbids it."""


def ensure(part: str) -> None:
    """Return if the libraries of `part` ("bridge" or "tests") can be imported; otherwise install them and restart.

    If something is missing that cannot or must not be installed, the process ends with exit code 2 and a sentence that
    says what to do.
    """
    if tuple(sys.version_info) < OLDEST_PYTHON:
        stop(f"Tidecast needs Python 3.11 or newer, this is {sys.version.split()[0]}. Use a newer python3.")
    system_packages(part)
    inside = Path(sys.prefix).resolve() == VENV.resolve()
    if not inside and all(importlib.util.find_spec(name) for name in NEEDED[part]):
        return
    create()
    if not (stamp(part).exists() or stamp("tests").exists()):
        install(part)
    if not inside:
        restart(part)


def python() -> Path:
    """The interpreter of the checkout's own environment."""
    return VENV / ("Scripts/python.exe" if on_windows() else "bin/python")


def stamp(part: str) -> Path:
    """The file that marks `part` as installed. Its name depends on pyproject.toml and on the pins, so that a change
    there installs again."""
    contents = [path.read_bytes() for path in (ROOT / "pyproject.toml", *pins(part))]
    digest = hashlib.sha256(b"".join(contents) + EXTRAS[part].encode()).hexdigest()[:16]
    return VENV / f".tidecast-{part}-{digest}"


def pins(part: str) -> list[Path]:
    """The files that pin the libraries of `part`, without torch."""
    from bridge.pins import files  # here: only a checkout has them

    return [files.BASE, *(files.extra(name) for name in EXTRAS[part].split(","))]


def create() -> None:
    """Create the virtual environment if it does not exist."""
    if python().exists():
        return
    if importlib.util.find_spec("venv") is None:
        stop("Libraries are missing, and this Python cannot make an environment for them. Copy the folder again.")
    if importlib.util.find_spec("ensurepip") is None:
        debian_install(("python3-venv",), "to create a virtual environment")
    say(f"creating {VENV}")
    import venv  # here: Windows' embeddable Python has no such module, and needs none

    try:
        venv.create(VENV, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        stop(f"The virtual environment could not be created: {error}. Check that {ROOT} can be written to.")


def install(part: str) -> None:
    """Install Tidecast and the libraries of `part` into the environment."""
    install_torch()
    say(f"installing the other libraries (once; about {LIBRARIES_GB[part]:g} GB on the disk)")
    pip("install", *HASHED, *(word for path in pins(part) for word in ("-r", str(path))))
    pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp(part).touch()


def install_torch() -> None:
    """Install torch in the build for this machine: for CPUs, or for the NVIDIA driver.

    The build on pip's index is for CPUs, and its hash is pinned, except on Linux (x86-64). There, and for an NVIDIA
    driver, uv chooses the build. Where uv cannot be had, or the index of torch's builds not be reached, pip takes its
    place; on Linux (x86-64) it finds the build for CUDA, or the one for CPUs if its index has only that.
    """
    from bridge.pins import files

    nvidia = has_nvidia()
    cuda = sys.platform.startswith("linux") and platform.machine() == "x86_64"
    say(f"installing torch for {'the NVIDIA driver' if nvidia else 'CPUs'} (once; {torch_size(cuda=nvidia)})")
    if nvidia or cuda:
        said = attempt("pip", *PIP_OPTIONS, "install", *HASHED, "-r", str(files.UV))
        if not said:
            # The newest release is not built for every driver, so that an older one may be chosen.
            wanted = f"{requirement('torch').partition(',')[0]},<={files.TORCH}" if nvidia else files.torch_wanted()
            said = attempt(*UV_TORCH, "auto" if nvidia else "cpu", "--python", str(python()), wanted)
        if not said:
            return
        say(f"uv could not do it ({said.splitlines()[0]})")
        say(f"asking pip ({'if its index has no other build, ' if cuda else ''}{torch_size(cuda=cuda)})")
    if nvidia and cuda:
        say(f"pip's build needs NVIDIA driver {PIP_DRIVER} or newer; tidecast doctor tells whether it finds the card")
    elif nvidia:
        say("that build cannot use the NVIDIA card; tidecast doctor names the command for the one that can")
    pip("install", *([files.torch_wanted()] if cuda else [*HASHED, "-r", str(files.torch())]))


def torch_size(*, cuda: bool) -> str:
    """What a build of torch needs, in words."""
    if cuda:
        return "with CUDA: about 3 GB to download, 5 GB on the disk"
    return "about 0.2 GB to download, 0.8 GB on the disk"


def pip(*arguments: str) -> None:
    """Run the environment's pip; on failure show its output and end the process."""
    said = attempt("pip", *PIP_OPTIONS, *arguments)
    if said:
        stop(f"{said}\nThe libraries could not be installed. Check the network and pip's settings, then retry.")


def attempt(module: str, *arguments: str) -> str:
    """Run an installer, a module of the environment. At a terminal it shows its progress itself, else it is quiet.

    Returns:
        What it said when it failed; empty if it succeeded.
    """
    command = [str(python()), "-m", module, *arguments]
    if at_terminal():
        code = subprocess.run(command, cwd=ROOT).returncode
        return f"{module} ended with code {code}, see above" if code else ""
    with tempfile.TemporaryFile("w+") as log:
        if subprocess.run([*command, "--quiet"], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode == 0:
            return ""
        log.seek(0)
        return log.read().strip() or f"{module} said nothing"


def at_terminal() -> bool:
    """Whether somebody watches the messages of this process."""
    return sys.stderr is not None and sys.stderr.isatty()


def requirement(name: str) -> str:
    """The project's requirement for a library, such as torch>=2.11."""
    import tomllib  # here: an older Python lacks it, and must get as far as the message about its version

    asked: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    return next(line for line in asked if line.startswith(name))


def on_windows() -> bool:
    """Whether this is Windows."""
    return os.name == "nt"


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is on this machine."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def system_packages(part: str) -> None:
    """Install the missing Debian packages of `part`, or say how to install them."""
    if not sys.platform.startswith("linux"):
        return
    missing = [] if has_library(AVAHI) else ["libavahi-client3"]
    if part == "tests":
        missing += [] if has_library(PORTAUDIO) else ["libportaudio2"]
        missing += [package for package, program in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        debian_install(missing, "for NDI" if part == "bridge" else "for NDI and for the tests' peers")


def debian_install(packages: Sequence[str], purpose: str) -> None:
    """Install `packages` with apt-get as root and with permission; otherwise name the command and end."""
    names = " ".join(packages)
    if sys.platform == "win32" or shutil.which("apt-get") is None:
        say(f"{names} (Debian's names) missing, {purpose}: install them with this system's package manager.")
        return
    if os.geteuid() != 0:
        stop(f"These packages are missing, {purpose}. Run: sudo apt-get install {names}")
    if not may_install(names, purpose):
        stop(f"Nothing was installed. {names} are needed {purpose}. Run: apt-get install {names}")
    say(f"installing {names} with apt-get ({purpose}; {PERMISSION}=no forbids it)")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    if subprocess.run(command, stderr=subprocess.DEVNULL, **quiet).returncode == 0:
        return
    subprocess.run(["apt-get", "update", "--quiet"], **quiet)
    if subprocess.run(command, **quiet).returncode != 0:
        stop(f"apt-get could not install {names}. Install them by hand, then start again.")


def may_install(names: str, purpose: str) -> bool:
    """Whether apt-get may be called: as `TIDECAST_APT` says, else as the user answers, else (no terminal) yes.

    Ends the process when `TIDECAST_APT` is neither yes nor no.
    """
    told = os.environ.get(PERMISSION, "").strip().lower()
    if told in ("yes", "no"):
        return told == "yes"
    if told:
        stop(f"{PERMISSION} is {told!r}. Set it to yes or no, or unset it.")
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    print(f"tidecast: {names} are missing, {purpose}. Install them with apt-get? [Y/n] ", end="", file=sys.stderr)
    sys.stderr.flush()
    answer = sys.stdin.readline()  # empty at the end of the input, which is no answer
    return bool(answer) and answer.strip().lower() in ("", "y", "yes")


def has_library(name: str) -> bool:
    """Whether the system's loader finds the shared library `name`."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def restart(part: str) -> None:
    """Run the same command again in the checkout's environment; does not return."""
    command = [str(python()), "-m", part, *sys.argv[1:]]
    if sys.platform == "win32":
        from bridge.ipc import job_object

        for number in (signal.SIGINT, signal.SIGBREAK):  # they also reach the child, which shuts down cleanly
            signal.signal(number, signal.SIG_IGN)
        child = subprocess.Popen(command)
        job_object.job().add(int(child._handle))  # type: ignore[attr-defined]
        sys.exit(child.wait())
    os.execv(command[0], command)


def say(text: str) -> None:
    """Print one line about what is being prepared."""
    print(f"tidecast: {text}", file=sys.stderr, flush=True)


def stop(text: str) -> None:
    """Print a sentence that says what to do, and end the process with exit code 2."""
    print(f"tidecast: {text}", file=sys.stderr, flush=True)
    sys.exit(2)
