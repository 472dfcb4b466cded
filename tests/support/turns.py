"""Turns between the worker processes of a test run: what measures time at an output runs while no other test does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock


class Turns:
    """The turns of one worker.

    Each worker holds a lock of its own while it runs a test; a test that must be alone holds all of them. Whoever wants
    to begin goes through a gate, one at a time, so that a test that waits to be alone is not kept waiting by new ones.

    Args:
        folder: an existing folder that the workers of this run share.
        worker: the name of this one.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._gate = filelock.FileLock(folder / "gate")
        own = folder / f"{worker}.worker"
        own.touch()  # so that the others know this worker before its first turn
        self._own = filelock.FileLock(own)

    @contextmanager
    def turn(self, alone: bool) -> Iterator[None]:
        """Wait until this worker may run a test, and keep the others waiting if it has to be alone."""
        with ExitStack() as held:
            with self._gate:
                held.enter_context(self._own)
                if alone:
                    for path in set(self._folder.glob("*.worker")) - {Path(self._own.lock_file)}:
                        held.enter_context(filelock.FileLock(path))
            yield
