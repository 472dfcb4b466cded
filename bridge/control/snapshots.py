"""Stored snapshots: the look (every control that makes the picture) under a number, recalled at once or with a glide.

A snapshot never holds the panic buttons: a recall neither takes black off nor brings it back. It holds the source, the
seed, the latency target and recording only if the save asked for them (`Control.stored`); the words that it was saved
with are kept in it under `EXTRAS`. Snapshots of older versions hold all of these without being asked; they are recalled
as if they did not.

They are kept in one JSON file, which is replaced atomically on a thread of its own, so that a slow disk delays no
control. Every Tidecast with the same folder has the same snapshots: a save changes its own number in the file and
leaves the others, and what others save is read within `LOOK_S`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bridge.control.files import locked, remove_unfinished, set_aside, write_atomically
from bridge.control.origin import Origin, Trust
from bridge.control.snapshot_commands import DELETE, NAME, RECALL, SAVE, UNDO, check
from bridge.control.store import Caller, ControlStore
from bridge.control.table import ControlTable
from bridge.service import Service
from engine.control import ALWAYS, NEVER, PREFIX
from engine.errors import ControlError

log = logging.getLogger(__name__)

MAX_SECONDS = 600.0
"""Longest glide."""

GLIDE_HZ = 60.0
LOOK_S = 1.0
"""Time between two looks at the file, in s: another Tidecast may have saved something."""

ORIGIN = Origin("snapshot", Trust.OPERATOR)
"""Origin of every write that a recall makes. It is trusted: what a snapshot holds was in force before, or was written
into its file by the user."""

EXTRAS = "with"
"""Key of a stored snapshot under which the words are that it was saved with. No control has this name: it is a reserved
word of Python."""

NAME_KEY = "as"
"""Key of a stored snapshot's name; like `EXTRAS` a reserved word of Python."""

LONGEST_NAME = 40
UNDO_KEPT = 50
"""Most changes that can be taken back."""


class Snapshots:
    """Holds the snapshots of one file and obeys the commands of `bridge.control.snapshot_commands`.

    Args:
        store: the live controls.
        path: the JSON file; created with its folder at the first save.
        report: called with (topic, reason) when something is wrong with the file; `Telemetry.error`.
    """

    def __init__(self, store: ControlStore, path: Path, report: Callable[[str, str], None]) -> None:
        self._store = store
        self._path = path
        self._report = report
        self._stored: dict[int, dict[str, Any]] = {}  # as in the file, with what this version does not know
        self._change = threading.Condition()
        self._unwritten: dict[int, dict[str, Any] | None] = {}  # None: it was deleted
        self._changed: deque[tuple[int, dict[str, Any] | None]] = deque(maxlen=UNDO_KEPT)  # number, what it was before
        self._callers: list[Caller] = []  # of the saves that are not written yet
        self._seen: tuple[int, ...] = ()  # what the file looked like when it was last read
        self._writer = Service("snapshots", self._write_loop, report, self._notice)
        self._undo: list[Callable[[], None]] = []
        self._gliding: dict[str, tuple[float, float]] = {}  # by name: start value, end value
        self._began, self._seconds = 0.0, 0.0
        self._glide_thread: threading.Thread | None = None

    def start(self) -> Snapshots:
        """Read the file and start to obey the commands. A damaged file is renamed and reported."""
        if self._undo:
            return self
        remove_unfinished(self._path)
        self._look()
        self._writer.start()
        self._undo = [
            self._store.on(SAVE.name, lambda args, caller: self.save(args[0], *args[1:], caller=caller)),
            self._store.on(RECALL.name, lambda args, caller: self.recall(*args)),
            self._store.on(DELETE.name, lambda args, caller: self.delete(args[0], caller)),
            self._store.on(NAME.name, lambda args, caller: self.rename(args[0], args[1], caller)),
            self._store.on(UNDO.name, lambda args, caller: self.undo(caller)),
            self._store.listen(self._note_write),
        ]
        return self

    def stop(self) -> None:
        """Stop gliding, write what has not been written yet, and stop obeying the commands."""
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
        return tuple(sorted(self._stored))

    def names(self) -> dict[int, str]:
        """The names of those that have one, by number."""
        return {n: str(stored[NAME_KEY]) for n, stored in self._stored.items() if stored.get(NAME_KEY)}

    def save(self, number: int, extras: str = "", *, caller: Caller | None = None) -> None:
        """Store the look under a number.

        Args:
            number: 1 to 64.
            extras: what is stored besides, as words (`Control.stored`) with spaces or commas between them.
            caller: is told if the file cannot be written.

        Raises:
            ControlError: if the number is not in 1..64, or there is no such word.
        """
        check(SAVE, number)
        values, table = self._store.values(), self._store.table
        words = _words(table, extras)
        look = {name: values[name] for name in stored_names(table, words)}
        saved = {**look, EXTRAS: list(words)} if words else look
        with self._change:
            if name := (self._stored.get(number) or {}).get(NAME_KEY):
                saved[NAME_KEY] = name
            self._put(number, saved, caller)

    def delete(self, number: int, caller: Caller | None = None) -> None:
        """Delete a snapshot.

        Raises:
            ControlError: if the number is not in 1..64 or nothing is stored under it.
        """
        check(DELETE, number)
        with self._change:
            self._held(DELETE.address, number)
            self._put(number, None, caller)

    def rename(self, number: int, name: str, caller: Caller | None = None) -> None:
        """Give a snapshot a name (cut to `LONGEST_NAME` characters); an empty one takes the name away.

        Raises:
            ControlError: if the number is not in 1..64 or nothing is stored under it.
        """
        check(NAME, number)
        name = " ".join(name.split())[:LONGEST_NAME]
        with self._change:
            stored = self._held(NAME.address, number)
            bare = {key: value for key, value in stored.items() if key != NAME_KEY}
            self._put(number, {**bare, NAME_KEY: name} if name else bare, caller)

    def undo(self, caller: Caller | None = None) -> None:
        """Take back the last save, deletion or name that was made here.

        Raises:
            ControlError: if there is none.
        """
        with self._change:
            if not self._changed:
                raise ControlError(PREFIX + UNDO.address, "There is nothing to take back.")
            number, before = self._changed.pop()
            self._put(number, before, caller)
            self._changed.pop()  # the change that `_put` has noted: taking back is not taken back

    def _held(self, address: str, number: int) -> dict[str, Any]:
        stored = self._stored.get(number)
        if stored is None:
            numbers = ", ".join(map(str, self.numbers())) or "none"
            raise ControlError(PREFIX + address, f"Nothing is stored under {number} (stored: {numbers}).")
        return stored

    def _put(self, number: int, values: dict[str, Any] | None, caller: Caller | None) -> None:
        """Replace or (None) delete one snapshot, and have it written; called with `_change` held."""
        self._changed.append((number, self._stored.get(number)))
        self._unwritten = {**self._unwritten, number: values}
        self._stored = _merged(self._stored, {number: values})
        self._callers.append(caller or Caller(ORIGIN))
        self._change.notify_all()

    def recall(self, number: int, seconds: float = 0.0) -> None:
        """Set the controls that the snapshot includes to their stored values.

        Those that can glide take `seconds` (0..600), the others switch at once. A control that something else sets
        during the glide stops gliding. A stored value that is not valid (the file was edited, or another version wrote
        it) is reported, and its control left as it is.

        Raises:
            ControlError: if the number is not in 1..64 or nothing is stored under it.
        """
        check(RECALL, number)
        values = self._valid(number, self._held(RECALL.address, number))
        seconds = min(max(seconds, 0.0), MAX_SECONDS)
        now = self._store.values()
        moving = {
            name: (now[name], value)
            for name, value in values.items()
            if seconds > 0.0 and self._store.table.by_name[name].glides and value != now[name]
        }
        with self._change:
            self._gliding, self._began, self._seconds = moving, time.monotonic(), seconds
        try:
            self._store.set_many({n: v for n, v in values.items() if n not in moving}, ORIGIN)
        except ControlError:
            with self._change:
                self._gliding = {}
            raise
        with self._change:
            if self._gliding and self._glide_thread is None:  # one thread, however many recalls there are
                self._glide_thread = threading.Thread(target=self._glide, name="glide", daemon=True)
                self._glide_thread.start()

    def _glide(self) -> None:
        """Move the gliding controls until each has arrived or was set by something else; another recall replaces them.

        Not a `Service`: the thread ends with the glide, under the lock that the next recall takes to start one.
        """
        while True:
            time.sleep(1.0 / GLIDE_HZ)
            with self._change:
                moving = self._gliding
                if not moving:
                    self._glide_thread = None
                    return
                share = min(1.0, (time.monotonic() - self._began) / self._seconds)
                if share == 1.0:
                    self._gliding = {}
            try:
                self._store.set_many(
                    {n: b if share == 1.0 else a + (b - a) * share for n, (a, b) in moving.items()}, ORIGIN
                )
            except Exception as error:  # whatever it is, the next glide must find a thread or start one
                log.exception("a glide failed")
                self._report(PREFIX + RECALL.address, f"The glide ended early: {error}")
                with self._change:
                    self._gliding = {}

    def _note_write(self, name: str, value: Any, origin: Origin) -> None:
        if origin != ORIGIN and name in self._gliding:
            with self._change:
                self._gliding = {n: ends for n, ends in self._gliding.items() if n != name}

    def _valid(self, number: int, stored: dict[str, Any]) -> dict[str, Any]:
        """The values of one stored snapshot that can be set. What is wrong with the others is reported."""
        table = self._store.table
        found: dict[str, Any] = {}
        asked = stored.get(EXTRAS)
        for name in stored_names(table, asked if isinstance(asked, list) else ()):
            if name not in stored:
                continue
            try:
                found[name] = table.by_name[name].coerce(stored[name])
            except ControlError as error:
                self._report(PREFIX + RECALL.address, f"Snapshot {number}, {name}: {error} It was left as it is.")
        return found

    def _write_loop(self) -> None:
        """Write the file whenever something was saved, and read it when another Tidecast has written it; ends when
        stopped and everything is written."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._callers or self._writer.stopping.is_set(), LOOK_S)
                callers, self._callers = self._callers, []
                unwritten = self._unwritten
                if not callers and self._writer.stopping.is_set():
                    return
            if not callers:
                self._look()
                continue
            try:
                with locked(self._path):
                    self._adopt(self._read())
                    stored = self._stored
                    content = {"version": 1, "snapshots": {str(n): stored[n] for n in sorted(stored)}}
                    # A file may hold half a surrogate pair; json reads it as Python does with "surrogatepass".
                    text = json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")
                    write_atomically(self._path, text)
                    self._seen = self._signature()
            except OSError as error:
                reason = f"{self._path} cannot be written ({error.strerror}); the snapshot is lost when Tidecast ends."
                self._report(PREFIX + SAVE.address, reason)
                for caller in callers:
                    caller.reply("/error", (PREFIX + SAVE.address, reason))
                continue
            with self._change:
                self._unwritten = {
                    n: v for n, v in self._unwritten.items() if n not in unwritten or unwritten[n] is not v
                }

    def _adopt(self, in_file: dict[int, dict[str, Any]] | None) -> None:
        """Take over the file's snapshots, except what was changed here and is not written yet; without a file (None)
        those in memory stay."""
        with self._change:
            self._stored = _merged(self._stored if in_file is None else in_file, self._unwritten)

    def _signature(self) -> tuple[int, ...]:
        """What tells that the file was replaced; empty without a file."""
        try:
            now = self._path.stat()
        except OSError:
            return ()
        return now.st_ino, now.st_mtime_ns, now.st_size

    def _look(self) -> None:
        """Read the file if it was replaced since it was last read."""
        if self._signature() == self._seen:
            return
        try:
            self._adopt(self._read())
        except OSError as error:
            self._report("snapshots", f"{self._path} cannot be read ({error.strerror}).")

    def _read(self) -> dict[int, dict[str, Any]] | None:
        """The snapshots of the file; None if there is no file. A damaged file is renamed and reported.

        Raises:
            OSError: if the file cannot be read, or is damaged and cannot be renamed; it must not be replaced then.
        """
        self._seen = self._signature()
        try:
            content = json.loads(self._path.read_bytes())
            return {int(number): dict(values.items()) for number, values in content["snapshots"].items()}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            try:
                aside = set_aside(self._path)
            except OSError as error:
                raise OSError(error.errno, f"it is damaged and cannot be set aside: {error.strerror}") from error
            self._report("snapshots", f"{self._path} is damaged; it was set aside as {aside.name}.")
            return None


def _merged(
    stored: Mapping[int, dict[str, Any]], changes: Mapping[int, dict[str, Any] | None]
) -> dict[int, dict[str, Any]]:
    return {number: values for number, values in {**stored, **changes}.items() if values is not None}


def stored_names(table: ControlTable, extras: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the controls that a snapshot includes which was saved with these words."""
    return tuple(c.name for c in table.controls if c.stored == ALWAYS or (c.stored != NEVER and c.stored in extras))


def _words(table: ControlTable, extras: str) -> tuple[str, ...]:
    known = tuple(dict.fromkeys(c.stored for c in table.controls if c.stored not in (ALWAYS, NEVER)))
    words = tuple(dict.fromkeys(extras.lower().replace(",", " ").split()))
    for word in words:
        if word not in known:
            raise ControlError(
                PREFIX + SAVE.address,
                f"{word[:40]!r} cannot be stored besides the look; these can: {', '.join(known)}.",
            )
    return words
