"""Reads and writes the file of the cue list on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from bridge.control.cues.cue_file import CueFile
from bridge.control.cues.cue_list import CueError, CueList
from bridge.control.files import locked, remove_unfinished, set_aside, signature
from bridge.control.store import Caller
from bridge.control.table import ControlTable
from bridge.service import Service

LOOK_S = 0.5
"""Time between two looks at the file. A file is read when it has not changed between two of them: an editor may need
more than one write for it."""

TOPIC = "cue"
REPLACED = "{} was changed at the same moment; the change that was made here takes its place."


class Keeper:
    """The file of one list. `start` and `stop` are idempotent.

    Args:
        path: the file.
        table: every control.
        adopt: called with the list of the file, at the start and when somebody else has changed it; returns whether it
            is taken.
        report: called with (topic, reason) when the file cannot be read or written.
        expected: whether it is said at the start that there is no file.
    """

    def __init__(
        self,
        path: Path,
        table: ControlTable,
        adopt: Callable[[CueList], bool],
        report: Callable[[str, str], None],
        expected: bool = False,
    ) -> None:
        self._path = path
        self._file = CueFile(path, table)
        self._adopt = adopt
        self._report = report
        self._expected = expected
        self._change = threading.Condition()
        self._unwritten: tuple[CueList, Caller] | None = None
        self._seen: tuple[int, ...] = ()
        self._damaged = False
        self._service = Service("cue-file", self._run, report, self._notice)

    def start(self) -> None:
        """Read the file, and follow it from now on. One that is not valid is reported and left as it is."""
        remove_unfinished(self._path)
        if self._expected and not self._path.exists():
            self._report(TOPIC, f"There is no file {self._path}; the first change of the cue list makes it.")
        self._read()
        self._service.start()

    def stop(self) -> None:
        """Write what is not written yet, and end."""
        self._service.stop()

    @property
    def waiting(self) -> bool:
        """Whether a list waits to be written."""
        return self._unwritten is not None

    def write(self, cues: CueList, caller: Caller) -> None:
        """Have the list written soon; `caller` is told if that is impossible. Never waits."""
        with self._change:
            self._unwritten = cues, caller
            self._change.notify_all()

    def _notice(self) -> None:
        with self._change:
            self._change.notify_all()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._unwritten or self._service.stopping.is_set(), LOOK_S)
                wanted, self._unwritten = self._unwritten, None
            if wanted is not None:
                self._write(*wanted)
            elif self._service.stopping.is_set():
                return
            else:
                self._look()

    def _look(self) -> None:
        now = signature(self._path)
        settled, self._seen = now == self._seen, now
        if settled and self._file.changed():
            self._read()

    def _read(self) -> None:
        self._damaged = False
        try:
            found = self._file.read()
        except CueError as error:
            self._damaged = True
            self._report(TOPIC, f"{error} The list stays as it is.")
            return
        if found is not None and not self._adopt(found):
            self._report(TOPIC, REPLACED.format(self._path))

    def _write(self, cues: CueList, caller: Caller) -> None:
        try:
            with locked(self._path):
                if self._damaged and self._path.exists():
                    aside = set_aside(self._path)
                    self._report(TOPIC, f"{self._path} was not valid; it was set aside as {aside.name}.")
                self._damaged = False
                if self._file.write(cues):
                    self._report(TOPIC, REPLACED.format(self._path))
            return
        except CueError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{self._path} cannot be written ({error.strerror})."
        reason += " The cue list is lost when Tidecast ends."
        self._report(TOPIC, reason)
        caller.reply("/error", (f"/{TOPIC}", reason))
