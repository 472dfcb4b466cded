"""Stored snapshots: all live controls stored under a number, and recalled at once or gliding.

They live in one JSON file that is replaced atomically, on a thread of its own so that a slow disk delays no
control. What records is not part of a snapshot: a recall must not end a recording. Must not know OSC.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.control.files import set_aside, write_atomically
from bridge.control.store import Caller, ControlStore
from bridge.control.table import ControlTable
from bridge.service import Service
from engine.control import PREFIX, Command
from engine.errors import ControlError

log = logging.getLogger(__name__)

FIRST, LAST = 1, 64
"""Range of the numbers."""

MAX_SECONDS = 600.0
"""Longest glide."""

GLIDE_HZ = 60.0
ORIGIN = "snapshot"
"""Origin of every write that a recall makes."""

NOT_KEPT = "Recording"
"""The group of controls that no snapshot holds."""

SAVE = Command(
    "snapshot_save",
    "/snapshot/save",
    (("number", "i", True),),
    "Snapshots",
    "Save",
    "Store all live controls under a number from 1 to 64, in a file that survives a restart.",
)
RECALL = Command(
    "snapshot_recall",
    "/snapshot/recall",
    (("number", "i", True), ("seconds", "f", False)),
    "Snapshots",
    "Recall",
    "Recall a stored snapshot, gliding over the seconds.",
)


class Snapshots:
    """Keeps the snapshots of one file and obeys `/snapshot/save` and `/snapshot/recall`.

    Args:
        store: the live controls.
        path: the JSON file; made with its folder at the first save.
        report: told of what goes wrong with the file, as (topic, reason); `Telemetry.error`.
    """

    def __init__(self, store: ControlStore, path: Path, report: Callable[[str, str], None]) -> None:
        self._store = store
        self._path = path
        self._report = report
        self._kept: dict[int, dict[str, Any]] = {}
        self._change = threading.Condition()
        self._unwritten: list[Caller] = []
        self._writer = Service("snapshots", self._write_on, report, self._notice)
        self._undo: list[Callable[[], None]] = []
        self._gliding: dict[str, tuple[float, float]] = {}  # by name: where from, where to
        self._begun, self._seconds = 0.0, 0.0
        self._mover: threading.Thread | None = None

    def start(self) -> Snapshots:
        """Read the file and obey the commands. A damaged file is set aside and reported."""
        if self._undo:
            return self
        self._kept = self._read()
        self._writer.start()
        self._undo = [
            self._store.on(SAVE.name, lambda args, caller: self.save(args[0], caller)),
            self._store.on(RECALL.name, lambda args, caller: self.recall(*args)),
            self._store.listen(self._touched),
        ]
        return self

    def stop(self) -> None:
        """Stop gliding, write what is unwritten, obey no more."""
        for undo in self._undo:
            undo()
        self._undo = []
        with self._change:
            self._gliding = {}
        self._writer.stop()

    def _notice(self) -> None:
        with self._change:
            self._change.notify_all()

    def numbers(self) -> tuple[int, ...]:
        """The numbers under which something is stored, ascending."""
        return tuple(sorted(self._kept))

    def save(self, number: int, caller: Caller | None = None) -> None:
        """Store all live controls under a number; `caller` is told if the file cannot be written.

        Raises:
            ControlError: if the number is not in 1..64.
        """
        _check(SAVE, number)
        values = self._store.values()
        with self._change:
            self._kept = {**self._kept, number: {name: values[name] for name in kept_names(self._store.table)}}
            self._unwritten.append(caller or Caller(ORIGIN))
            self._change.notify_all()

    def recall(self, number: int, seconds: float = 0.0) -> None:
        """Set all live controls as they were stored. Those that can glide take `seconds` (0..600), the others
        switch at once. Whoever touches a control meanwhile takes it over.

        Raises:
            ControlError: if the number is not in 1..64 or nothing is stored under it.
        """
        _check(RECALL, number)
        kept = self._kept.get(number)
        if kept is None:
            stored = ", ".join(map(str, self.numbers())) or "none"
            raise ControlError(PREFIX + RECALL.address, f"Nothing is stored under {number} (stored: {stored}).")
        seconds = min(max(seconds, 0.0), MAX_SECONDS)
        now = self._store.values()
        moving = {
            name: (now[name], value)
            for name, value in kept.items()
            if seconds > 0.0 and self._store.table.by_name[name].glides and value != now[name]
        }
        with self._change:
            self._gliding, self._begun, self._seconds = moving, time.monotonic(), seconds
        self._store.set_many({n: v for n, v in kept.items() if n not in moving}, ORIGIN)
        with self._change:
            if self._gliding and self._mover is None:  # one thread for however many recalls
                self._mover = threading.Thread(target=self._move, name="glide", daemon=True)
                self._mover.start()

    def _move(self) -> None:
        """Move what glides until it has arrived or was touched; a recall meanwhile changes what that is.

        No `Service`: the thread ends with the glide, under the same lock as the next recall begins one.
        """
        while True:
            time.sleep(1.0 / GLIDE_HZ)
            with self._change:
                moving = self._gliding
                if not moving:
                    self._mover = None
                    return
                share = min(1.0, (time.monotonic() - self._begun) / self._seconds)
                if share == 1.0:
                    self._gliding = {}
            self._store.set_many(
                {n: b if share == 1.0 else a + (b - a) * share for n, (a, b) in moving.items()}, ORIGIN
            )

    def _touched(self, name: str, value: Any, origin: str) -> None:
        if origin != ORIGIN and name in self._gliding:
            with self._change:
                self._gliding = {n: ends for n, ends in self._gliding.items() if n != name}

    def _write_on(self) -> None:
        """Write the file whenever something was saved; ends when stopped and all is written."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._unwritten or self._writer.stopping.is_set())
                callers, self._unwritten = self._unwritten, []
                kept = self._kept
                if not callers:
                    return
            content = {"version": 1, "snapshots": {str(n): kept[n] for n in sorted(kept)}}
            try:
                write_atomically(self._path, json.dumps(content, ensure_ascii=False, indent=1).encode())
            except OSError as error:
                reason = f"{self._path} cannot be written ({error.strerror}); the snapshot is lost at the end."
                self._report(PREFIX + SAVE.address, reason)
                for caller in callers:
                    caller.reply("/error", (PREFIX + SAVE.address, reason))

    def _read(self) -> dict[int, dict[str, Any]]:
        try:
            content = json.loads(self._path.read_bytes())
            return {int(n): _valid(values, self._store.table) for n, values in content["snapshots"].items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._report("snapshots", f"{self._path} cannot be read ({error.strerror}).")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            try:
                aside = set_aside(self._path)
                self._report("snapshots", f"{self._path} is damaged; it was set aside as {aside.name}.")
            except OSError as error:
                self._report("snapshots", f"{self._path} is damaged and cannot be set aside ({error.strerror}).")
        return {}


def kept_names(table: ControlTable) -> tuple[str, ...]:
    """Names of the controls that a snapshot holds."""
    return tuple(c.name for c in table.controls if c.group != NOT_KEPT)


def _check(command: Command, number: int) -> None:
    if not FIRST <= number <= LAST:
        raise ControlError(PREFIX + command.address, f"{number} is not a snapshot's number ({FIRST} to {LAST}).")


def _valid(values: dict[str, Any], table: ControlTable) -> dict[str, Any]:
    """The values of one stored snapshot that this version knows, coerced; others are left out with a note."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        try:
            found[name] = table.by_name[name].coerce(value)
        except (KeyError, ControlError):
            log.warning("a snapshot holds %s = %.60r, which is not known here", name, value)
    return {n: v for n, v in found.items() if n in kept_names(table)}
