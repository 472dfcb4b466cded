"""Runs uv, which downloads, checks and unpacks the packages."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bridge.pins import files
from engine.errors import TidecastError


class BundleError(TidecastError):
    """The folder could not be made."""


def install(target: Path, *arguments: str, pins: Sequence[Path]) -> None:
    """Unpack what files of pins name into a folder, for Windows; what arrives must have one of their hashes.

    The files are copied, not linked, because the folder may be changed and uv's cache must not.

    Raises:
        BundleError: if a package cannot be had, or is another one than the pinned.
    """
    named = [word for path in pins for word in ("-r", str(path))]
    options = ("--no-deps", "--require-hashes", "--link-mode", "copy", "--build-constraints", str(files.BUILD))
    run("pip", "install", "--target", str(target), *files.WINDOWS, *options, *arguments, *named)


def build(source: Path, target: Path) -> Path:
    """Build the wheel of the project in `source` and return its path."""
    run("build", "--out-dir", str(target), "--build-constraints", str(files.BUILD), "--require-hashes", str(source))
    return next(target.glob("*.whl"))


def unpack(wheel: Path, target: Path) -> None:
    """Unpack one wheel without what it needs."""
    run("pip", "install", "--target", str(target), *files.WINDOWS, "--no-deps", "--link-mode", "copy", str(wheel))


def run(*arguments: str, output: Path | None = None) -> None:
    """Run uv. At a terminal it shows its progress itself, else it is quiet.

    Args:
        arguments: its command line.
        output: where to what it prints is written, if that is wanted.

    Raises:
        BundleError: if it fails.
    """
    _ensure()
    shown = sys.stderr is not None and sys.stderr.isatty()
    # Named, because uv would look through all of this machine's for one of the version in the folder.
    python = ("--python", sys.executable)
    command = [sys.executable, "-m", "uv", *arguments, *python, *([] if shown else ["--no-progress"])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None if shown else subprocess.PIPE, text=True)
    if done.returncode:
        said = "It said what is wrong above." if shown else f"It said: {done.stderr.strip()}"
        raise BundleError(f"uv could not do this: {' '.join(arguments[:2])}. {said}", "Then start again: it goes on.")
    if output is not None:
        output.write_text(done.stdout, "utf-8")


def _ensure() -> None:
    """Install uv where it is missing."""
    if importlib.util.find_spec("uv") is not None:
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(files.UV)]
    if subprocess.run(command).returncode:
        raise BundleError("uv could not be installed.", "Check the network and pip's settings, then start again.")
