"""The files of recordings: names that no other recording has, of this program or of another one in the same folder."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

LEFT_BEHIND_S = 600.0
"""An empty file of this age belongs to a recording that was killed before its first picture, in s."""

SUFFIXES = (".mp4", ".mov")

MAX_NUMBER = 1000
"""Most files of one second."""


def reserve(folder: Path, stem: str, suffix: str) -> Path:
    """Create an empty file, `stem.mp4` for the suffix `.mp4`, or `stem 1.mp4` and so on where that exists.

    Returns:
        Its path.

    The file is created in the same step in which it is found to be missing, so that two recordings that begin in the
    same second, even of two programs, never get the same one.

    Raises:
        OSError: if it cannot be created.
    """
    for number in range(MAX_NUMBER):
        path = folder / f"{stem}{f' {number}' if number else ''}{suffix}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return path
    raise FileExistsError(f"there are {MAX_NUMBER} recordings called {stem!r}")


def remove_empty(path: Path) -> None:
    """Remove a file if nothing was written to it."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def remove_left_behind(folder: Path) -> None:
    """Remove the empty files of recordings that were killed before their first picture."""
    with contextlib.suppress(OSError):
        for path in folder.glob("Tidecast ????-??-?? ??-??-??*"):
            if path.suffix not in SUFFIXES:
                continue
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > LEFT_BEHIND_S:
                    remove_empty(path)
