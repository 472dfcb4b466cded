"""Small files that must survive a crash: they are replaced atomically, and renamed when they are damaged."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import platformdirs


def state_dir(setting: str = "") -> Path:
    """The folder of snapshots and MIDI bindings: `setting`, or the user's data folder if that is empty."""
    if setting:
        return Path(setting).expanduser()
    return platformdirs.user_data_path("tidecast", appauthor=False)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a crash at any time leaves either the complete old file or the complete new one.

    Raises:
        OSError: if that is impossible (disk full, no permission); the old file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    if os.name == "posix":  # the folder's new entry must reach the disk, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to a free name in the same folder, and return the new path.

    Raises:
        OSError: if the file cannot be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
        number += 1
    return path.rename(aside)
