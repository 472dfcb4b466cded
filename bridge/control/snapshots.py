"""Stored snapshots: the look (every control that makes the picture) under a number, recalled at once or with a glide.

A snapshot never holds the panic buttons: a recall neither takes black off nor brings it back. It holds the source, the
seed, the latency target and recording only if the save asked for them (`Control.stored`); the words that it was saved
with are kept in it under `EXTRAS`. Snapshots of older versions hold all of these without being asked; they are recalled
as if they did not. A snapshot also holds a small picture of the output at the moment of the save, and the name and the
colour that the user has given it.

They are kept in one JSON file, which is replaced atomically on a thread of its own, so that a slow disk delays no
control. Every Tidecast with the same folder has the same snapshots: a save changes its own number in the file and
leaves the others, and what others save is read within `LOOK_S`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.control.files import locked, remove_unfinished
from bridge.control.origin import Origin, Trust
from bridge.control.snapshot_commands import COLOR, COLORS, DELETE, NAME, RECALL, SAVE, UNDO, check
from bridge.control.store import Caller, ControlStore
from bridge.control.stored.content import (
    COLOR_KEY,
    EXTRAS,
    LONGEST_NAME,
    NAME_KEY,
    PICTURE_KEY,
    changed,
    color_of,
    name_of,
    picture_of,
    stored_names,
    words_of,
)
from bridge.control.stored.glide import Glide
from bridge.control.stored.later import Later, at_once
from bridge.control.stored.storage import SnapshotFile
from bridge.control.stored.thumbnail import Thumbnail
from bridge.service import Service
from engine.control import PREFIX
from engine.errors import ControlError
from engine.frame import Frame

MAX_SECONDS = 600.0
"""Longest glide."""

LOOK_S = 1.0
"""Time between two looks at the file, in s: another Tidecast may have saved something."""

ORIGIN = Origin("snapshot", Trust.OPERATOR)
"""Origin of every write that a recall makes. It is trusted: what a snapshot holds was in force before, or was written
into its file by the user."""

UNDO_KEPT = 50
"""Most changes that can be taken back."""

MAX_WAITING = 8
"""Most pictures that wait to be encoded, each with a frame in memory; saves beyond that have no picture."""

Stored = dict[str, Any]
"""One snapshot; see `bridge.control.stored.content`."""


def no_picture() -> Frame | None:
    """The newest picture of an output that there is not."""
    return None


@dataclass(frozen=True, slots=True)
class Step:
    """A change that can be taken back: what the numbers held before (None: nothing), and what else is to be undone."""

    before: Mapping[int, Stored | None]
    also: Callable[[], None] | None = None


class Snapshots:
    """Holds the snapshots of one file and obeys the commands of `bridge.control.snapshot_commands`.

    Args:
        store: the live controls.
        path: the JSON file; created with its folder at the first save.
        report: called with (topic, reason) when something is wrong with the file; `Telemetry.error`.
        picture: returns the newest frame of the output, None if there is none; must be quick.
        later: keeps a recall that has to wait for the beat.
    """

    def __init__(
        self,
        store: ControlStore,
        path: Path,
        report: Callable[[str, str], None],
        picture: Callable[[], Frame | None] = no_picture,
        later: Later = at_once,
    ) -> None:
        self._store = store
        self._report = report
        self._picture = picture
        self._later = later
        self._file = SnapshotFile(path, report)
        self._stored: dict[int, Stored] = {}  # as in the file, with what this version does not know
        self._change = threading.Condition()
        self._unwritten: dict[int, Stored | None] = {}  # None: it was deleted
        self._waiting: list[Thumbnail] = []
        self._steps: deque[Step] = deque(maxlen=UNDO_KEPT)
        self._callers: list[Caller] = []  # of the saves that are not written yet
        self._writer = Service("snapshots", self._write_loop, report, self._notice)
        self._undo: list[Callable[[], None]] = []
        self._glide = Glide(store, ORIGIN, RECALL.address, report)

    def start(self) -> Snapshots:
        """Read the file and start to obey the commands. A damaged file is renamed and reported."""
        if self._undo:
            return self
        remove_unfinished(self._file.path)
        self._look()
        self._writer.start()
        self._undo = [
            self._store.on(SAVE.name, lambda args, caller: self.save(args[0], *args[1:], caller=caller)),
            self._store.on(RECALL.name, lambda args, caller: self._asked(caller.origin, *args)),
            self._store.on(DELETE.name, lambda args, caller: self.delete(args[0], caller)),
            self._store.on(NAME.name, lambda args, caller: self.rename(args[0], args[1], caller)),
            self._store.on(COLOR.name, lambda args, caller: self.color(args[0], args[1], caller)),
            self._store.on(UNDO.name, lambda args, caller: self.undo(caller)),
            self._store.listen(lambda name, value, origin: self._glide.note_write(name, origin)),
        ]
        return self

    def stop(self) -> None:
        """Stop gliding, write what has not been written yet, and stop obeying the commands."""
        for undo in self._undo:
            undo()
        self._undo = []
        self._glide.stop()
        self._writer.stop()

    def _notice(self) -> None:
        with self._change:
            self._change.notify_all()

    def numbers(self) -> tuple[int, ...]:
        """The numbers under which something is stored, ascending."""
        return tuple(sorted(self._stored))

    def names(self) -> dict[int, str]:
        """The names of those that have one, by number."""
        return {number: name for number, stored in self._stored.items() if (name := name_of(stored))}

    def colors(self) -> dict[int, str]:
        """The colours of those that have one, by number."""
        return {number: color for number, stored in self._stored.items() if (color := color_of(stored))}

    def pictures(self) -> dict[int, bytes]:
        """The pictures of those that have one, as JPEG, by number. A new one is here shortly after its save."""
        return {number: jpeg for number, stored in self._stored.items() if (jpeg := picture_of(stored))}

    def all(self) -> dict[int, Stored]:
        """Every snapshot by its number, as in the file; not to be changed."""
        return dict(self._stored)

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
        words = words_of(table, extras)
        frame = self._picture()
        saved = {name: values[name] for name in stored_names(table, words)}
        if words:
            saved[EXTRAS] = list(words)
        with self._change:
            before = self._stored.get(number, {})
            saved |= {key: before[key] for key in (NAME_KEY, COLOR_KEY) if before.get(key)}
            if frame is not None and (thumbnail := self._thumbnail(frame)) is not None:
                saved[PICTURE_KEY] = thumbnail
            self._put({number: saved}, caller)

    def delete(self, number: int, caller: Caller | None = None) -> None:
        """Delete a snapshot.

        Raises:
            ControlError: if the number is not in 1..64 or nothing is stored under it.
        """
        check(DELETE, number)
        with self._change:
            self._held(DELETE.address, number)
            self._put({number: None}, caller)

    def rename(self, number: int, name: str, caller: Caller | None = None) -> None:
        """Give a snapshot a name (cut to `LONGEST_NAME` characters); an empty one takes the name away.

        Raises:
            ControlError: if the number is not in 1..64 or nothing is stored under it.
        """
        check(NAME, number)
        name = " ".join(name.split())[:LONGEST_NAME]
        with self._change:
            self._put({number: changed(self._held(NAME.address, number), NAME_KEY, name)}, caller)

    def color(self, number: int, color: str, caller: Caller | None = None) -> None:
        """Give a snapshot a colour of `COLORS`; an empty text takes it away.

        Raises:
            ControlError: if the number is not in 1..64, nothing is stored under it, or there is no such colour.
        """
        check(COLOR, number)
        word = color.strip().lower()
        if word and word not in COLORS:
            reason = f"{color[:40]!r} is not a colour of a snapshot; these are: {', '.join(COLORS)}."
            raise ControlError(PREFIX + COLOR.address, reason)
        with self._change:
            self._put({number: changed(self._held(COLOR.address, number), COLOR_KEY, word)}, caller)

    def undo(self, caller: Caller | None = None) -> None:
        """Take back the last change that was made here: a save, a deletion, a name, a colour or an opened show.

        Raises:
            ControlError: if there is none.
        """
        with self._change:
            if not self._steps:
                raise ControlError(PREFIX + UNDO.address, "There is nothing to take back.")
            step = self._steps.pop()
            self._put(step.before, caller, remember=False)  # taking back is not taken back
        if step.also is not None:
            step.also()

    def replace_all(
        self,
        snapshots: Mapping[int, Mapping[str, Any]],
        caller: Caller | None = None,
        also: Callable[[], None] | None = None,
    ) -> None:
        """Put these in the place of all that are stored, as one change that `undo` takes back.

        Args:
            snapshots: by number; must be valid.
            caller: is told if the file cannot be written.
            also: called when the change is taken back.
        """
        with self._change:
            gone: dict[int, Stored | None] = dict.fromkeys(self._stored)
            self._put({**gone, **{number: dict(stored) for number, stored in snapshots.items()}}, caller, also)

    def _held(self, address: str, number: int) -> Stored:
        stored = self._stored.get(number)
        if stored is None:
            numbers = ", ".join(map(str, self.numbers())) or "none"
            raise ControlError(PREFIX + address, f"Nothing is stored under {number} (stored: {numbers}).")
        return stored

    def _thumbnail(self, frame: Frame) -> Thumbnail | None:
        """The picture of a save, to be encoded by the writer; called with `_change` held."""
        if self._waiting and self._waiting[-1].shows(frame):
            return self._waiting[-1]
        if len(self._waiting) >= MAX_WAITING:
            return None
        self._waiting.append(Thumbnail(frame))
        return self._waiting[-1]

    def _put(
        self,
        changes: Mapping[int, Stored | None],
        caller: Caller | None,
        also: Callable[[], None] | None = None,
        *,
        remember: bool = True,
    ) -> None:
        """Replace or (None) delete snapshots, and have it written; called with `_change` held."""
        if remember:
            self._steps.append(Step({number: self._stored.get(number) for number in changes}, also))
        self._unwritten = {**self._unwritten, **changes}
        self._stored = _merged(self._stored, changes)
        self._callers.append(caller or Caller(ORIGIN))
        self._change.notify_all()

    def _asked(self, origin: Origin, number: int, seconds: float = 0.0) -> None:
        """Recall a snapshot now, or on the beat."""
        check(RECALL, number)
        held = self._held(RECALL.address, number)
        names = [name for name in self._store.table.by_name if name in held]

        def apply(names: Collection[str], first: bool, beat: float) -> None:
            self.recall(number, seconds, names, keep=not first)

        if not self._later(RECALL.name, number, names, origin, apply):
            self.recall(number, seconds)

    def recall(
        self, number: int, seconds: float = 0.0, only: Collection[str] | None = None, *, keep: bool = False
    ) -> None:
        """Set the controls that the snapshot includes to their stored values.

        Those that can glide take `seconds` (0..600), the others switch at once. A control that something else sets
        during the glide stops gliding. Of the controls, `only` these are set; with `keep`, those that glide already, of
        the other half of the recall, glide on.

        Raises:
            ControlError: if the number is not in 1..64 or nothing is stored under it.
        """
        values, now = self.values_of(number, only), self._store.values()
        seconds = min(max(seconds, 0.0), MAX_SECONDS)
        moving = {
            name: (now[name], value)
            for name, value in values.items()
            if seconds > 0.0 and self._store.table.by_name[name].glides and value != now[name]
        }
        self._glide.replace(moving, seconds, keep=keep)
        try:
            self._store.set_many({n: v for n, v in values.items() if n not in moving}, ORIGIN)
        except ControlError:
            self._glide.stop()
            raise
        self._glide.go()

    def values_of(self, number: int, only: Collection[str] | None = None) -> dict[str, Any]:
        """The values that a recall sets; of the controls, `only` these. One that is not valid (the file was edited, or
        another version wrote it) is reported and left out.

        Raises:
            ControlError: if the number is not in 1..64 or nothing is stored under it.
        """
        check(RECALL, number)
        stored, table = self._held(RECALL.address, number), self._store.table
        found: dict[str, Any] = {}
        words = stored.get(EXTRAS)
        for name in stored_names(table, words if isinstance(words, list) else ()):
            if name not in stored or (only is not None and name not in only):
                continue
            try:
                found[name] = table.by_name[name].coerce(stored[name])
            except ControlError as error:
                self._report(PREFIX + RECALL.address, f"Snapshot {number}, {name}: {error} It was left as it is.")
        return found

    def _write_loop(self) -> None:
        """Write the file whenever something was saved, and read it when another Tidecast has written it; ends when
        stopped and everything is written. Pictures are encoded first: a slow disk must not hold their frames."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._callers or self._writer.stopping.is_set(), LOOK_S)
                callers, self._callers = self._callers, []
                waiting, self._waiting = self._waiting, []
                if not callers and self._writer.stopping.is_set():
                    return
            for thumbnail in waiting:
                thumbnail.encode()
            if callers:
                self._write(callers)
            else:
                self._look()

    def _write(self, callers: list[Caller]) -> None:
        """Write what is not written yet; tell these callers if that is impossible."""
        with self._change:
            unwritten = self._unwritten
        try:
            with locked(self._file.path):
                self._adopt(self._file.read())
                self._file.write(self._stored)
        except OSError as error:
            reason = f"{self._file.path} cannot be written ({error.strerror}); the snapshot is lost when Tidecast ends."
            self._report(PREFIX + SAVE.address, reason)
            for caller in callers:
                caller.reply("/error", (PREFIX + SAVE.address, reason))
            return
        with self._change:
            self._unwritten = {n: v for n, v in self._unwritten.items() if n not in unwritten or unwritten[n] is not v}

    def _adopt(self, in_file: dict[int, Stored] | None) -> None:
        """Take over the file's snapshots, except what was changed here and is not written yet; without a file (None)
        those in memory stay."""
        with self._change:
            self._stored = _merged(self._stored if in_file is None else in_file, self._unwritten)

    def _look(self) -> None:
        """Read the file if it was replaced since it was last read."""
        if not self._file.changed():
            return
        try:
            self._adopt(self._file.read())
        except OSError as error:
            self._report("snapshots", f"{self._file.path} cannot be read ({error.strerror}).")


def _merged(stored: Mapping[int, Stored], changes: Mapping[int, Stored | None]) -> dict[int, Stored]:
    return {number: values for number, values in {**stored, **changes}.items() if values is not None}
