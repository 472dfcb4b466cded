"""Prepares what the run under Wine needs, in a cache folder: Wine, Windows' Python, every library, Wine's own folder.

    CACHE/debian       Debian 13 with Wine 10 and an X server; not made where the system has a new enough Wine
    CACHE/folder       what `tidecast bundle windows` makes
    CACHE/tests        libraries of the tests
    CACHE/wine-numpy   a numpy that Wine can load
    CACHE/python       a copy of the folder's Python that sees the checkout and all of these
    CACHE/prefix       Wine's drive C: and registry

What is there is made again only when the pins change. Remove the folder to begin anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from bridge.bootstrap import ROOT
from bridge.bundle import uv, windows
from bridge.bundle.command import ALWAYS
from bridge.pins import files
from tests.windows.wine import CannotPrepare, Wine

OLDEST_WINE = 9
"""With older ones, torch and zeroconf end in a function that Wine lacks."""

DEBIAN = "trixie"
MIRROR = "http://deb.debian.org/debian"
SCREEN = ("xvfb", "libgl1-mesa-dri", "libgl1")

NUMPY = "numpy==2.1.3"
"""The newest one without `crealf`, which Wine's C library lacks and Windows' has."""

MADE_OF = ".made-of"
"""The file in each folder that says from what it was made, and that it is complete."""

TESTS = ("dev", "wan")


def prepare(cache: Path, say: Callable[[str], None]) -> Wine:
    """Make what is missing.

    Raises:
        CannotPrepare: something cannot be had here; it says what.
        BundleError: a library cannot be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    wine = Wine(cache, debian(cache, say))
    folder = cache / "folder"
    windows.make(folder, windows.Recipe(extras=ALWAYS, say=say))
    pins = [files.extra(name) for name in TESTS]
    made(cache / "tests", say, lambda part: uv.install(part, "--only-binary", ":all:", pins=pins), of=pins)
    numpy = ("pip", "install", "--no-deps", "--only-binary", ":all:", *files.WINDOWS)
    made(cache / "wine-numpy", say, lambda part: uv.run(*numpy, "--target", str(part), NUMPY))
    made(cache / "python", say, lambda part: python(part, cache), of=[files.PYTHON], sees=str(ROOT))
    if not (cache / "prefix" / "system.reg").exists():
        say("Wine's own folder ...")
        with wine.screen():
            started = wine.run("wineboot", "-i", timeout_s=180.0)
        if not (cache / "prefix" / "drive_c").is_dir():
            raise CannotPrepare(f"Wine does not start: {started.output.strip()}")
    return wine


def debian(cache: Path, say: Callable[[str], None]) -> Path | None:
    """The folder with Debian 13 and Wine, or None where the system's own Wine is new enough."""
    own = shutil.which("wine")
    if own and shutil.which("Xvfb"):
        version = subprocess.run([own, "--version"], capture_output=True, text=True).stdout
        found = re.search(r"wine-(\d+)", version)
        if found and int(found[1]) >= OLDEST_WINE:
            return None
    root = cache / "debian"
    if (root / MADE_OF).exists():
        return root
    missing = [name for name in ("debootstrap", "unshare", "chroot") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        why = f"{', '.join(missing)} missing" if missing else "a folder with another Debian can be made by root only"
        raise CannotPrepare(f"Wine {OLDEST_WINE} or newer and Xvfb are not installed, and {why}.")
    made(root, say, lambda part: _debootstrap(part, say))
    return root


def _debootstrap(part: Path, say: Callable[[str], None]) -> None:
    say("Debian 13 with Wine 10 (a few minutes) ...")
    included = ",".join(("ca-certificates", *SCREEN))
    _must("debootstrap", "--variant=minbase", f"--include={included}", DEBIAN, str(part), MIRROR)
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends wine wine64 && apt-get clean"
    _must("chroot", str(part), "sh", "-c", install)


def _must(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise CannotPrepare(f"{command[0]} failed: {' '.join(done.stdout.splitlines()[-3:])}")


def made(
    folder: Path, say: Callable[[str], None], fill: Callable[[Path], None], of: Sequence[Path] = (), sees: str = ""
) -> None:
    """Fill a folder under another name, and rename it when it is complete.

    Does nothing if it is there and was made of files with the same contents, and names the same place in `sees`.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in of) + sees.encode()).hexdigest()
    mark = folder / MADE_OF
    if mark.exists() and mark.read_text() == digest:
        return
    say(f"{folder.name} ...")
    part = folder.with_name(f".{folder.name}.part")
    for old in (part, folder):
        if old.exists():
            shutil.rmtree(old)
    fill(part)
    (part / MADE_OF).write_text(digest)
    part.rename(folder)


def python(part: Path, cache: Path) -> None:
    """A copy of the folder's Python that finds the tests, and a numpy that Wine can load, too."""
    shutil.copytree(cache / "folder" / "python", part)
    seen: Sequence[Path] = (cache / "wine-numpy", ROOT, cache / "folder" / "libraries", cache / "tests")
    lines = ["python313.zip", ".", *(windows_path(path) for path in seen), "import site"]
    (part / "python313._pth").write_text("\n".join(lines) + "\n", "utf-8")


def windows_path(path: Path) -> str:
    """The path by which programs under Wine name a file of this system."""
    return "Z:" + str(path.absolute()).replace("/", "\\")
