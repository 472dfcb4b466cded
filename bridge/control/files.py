"""Small files that must survive a crash, and that several Tidecasts on one machine may share.

They are replaced atomically, renamed when they are damaged, and changed only under the lock of their folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import platformdirs

from engine.config import long_folder
from engine.errors import ConfigError

LOCK = ".lock"
"""Name of the file in each folder that is locked. It is empty; on Linux and macOS it stays."""

LOCK_WAIT_S = 2.0
"""Longest wait for another Tidecast, which holds the lock only while it reads or writes one small file."""

REPLACE_WAIT_S = 1.0
"""How long a file that another program has open is tried to be replaced on Windows: a search index or a virus scanner
opens every new file for a moment."""


def state_dir(setting: str = "") -> Path:
    """The folder of snapshots and MIDI bindings: `setting`, or the user's data folder if that is empty.

    Raises:
        ConfigError: if `setting` begins with the home of a user that does not exist.
    """
    if setting:
        try:
            return long_folder(Path(setting).expanduser())
        except RuntimeError:
            raise ConfigError(f"{setting}: there is no such user.", "Name a folder.") from None
    return long_folder(platformdirs.user_data_path("tidecast", appauthor=False))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file's folder, so that no other Tidecast changes a file in it; makes the folder.

    Raises:
        OSError: if the folder cannot be written, or another program holds the lock for longer than `LOCK_WAIT_S`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.parent / LOCK, timeout=LOCK_WAIT_S)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise OSError(errno.EAGAIN, "another Tidecast is writing there") from error
    except NotImplementedError as error:
        raise OSError(errno.ENOLCK, "the file system has no locks") from error
    try:
        yield
    finally:
        lock.release()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a crash or a power loss at any time leaves either the complete old file or the complete
    new one. To be called under the lock (`locked`).

    Raises:
        OSError: if that is impossible (disk full, no permission); the old file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    try:
        with open(unfinished, "wb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # before the rename, so that the new name never stands for half a file
        _replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
    if os.name == "posix":  # the folder's new entry must reach the disk, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_unfinished(path: Path) -> None:
    """Remove what a program that was killed while it wrote this file has left. Does nothing if that is impossible."""
    with contextlib.suppress(OSError):
        if _unfinished(path).exists():
            with locked(path):
                _unfinished(path).unlink()


def signature(path: Path) -> tuple[int, ...]:
    """What tells that a file was replaced; empty without a file."""
    try:
        now = path.stat()
    except OSError:
        return ()
    return now.st_ino, now.st_mtime_ns, now.st_size


def set_aside(path: Path) -> Path:
    """Rename a damaged file to a free name in the same folder, and return the new path.

    Raises:
        OSError: if the file cannot be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
        number += 1
    return path.rename(aside)


def _unfinished(path: Path) -> Path:
    """Where a new version is written. The name is fixed: under the lock nobody else uses it, and the next write takes
    the place of one that was never finished."""
    return path.with_name(f".{path.name}.tmp")


def _private(path: str, flags: int) -> int:
    """Open a file that only its owner may read."""
    return os.open(path, flags, 0o600)


def _replace(source: Path, target: Path) -> None:
    end = time.monotonic() + REPLACE_WAIT_S
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() >= end:
                raise
        time.sleep(0.01)
