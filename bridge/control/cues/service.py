"""`Cues`: the cue list of a running bridge, joined to the live controls, telemetry, its file and the session.

One thread plays the list, another one reads and writes its file: a slow disk delays no cue.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.control.cues import editing
from bridge.control.cues.capture import Capture, Moment
from bridge.control.cues.controls import (
    ADD,
    BACK,
    GLIDE,
    GO_ON,
    JUMP,
    LOOP,
    MOVE,
    NAME,
    PAUSE,
    REMOVE,
    STOP,
    UNDO,
    WAIT,
    CueControls,
)
from bridge.control.cues.cue_list import MAX_CUES, CueError, CueList
from bridge.control.cues.keeper import Keeper
from bridge.control.cues.runner import CueRunner
from bridge.control.origin import INTERNAL, Origin, Trust
from bridge.control.snapshot_commands import RECALL
from bridge.control.snapshots import ORIGIN as SNAPSHOT
from bridge.control.snapshots import Snapshots
from bridge.control.store import Caller, ControlStore
from bridge.control.stored.content import stored_names
from bridge.control.stored.session import Session
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.controls import CANCEL
from bridge.control.tempo.service import TempoService
from bridge.service import Service
from engine.control import Command

TELL_NS = 100_000_000
"""Time between two updates of the telemetry."""

CAPTURE_S = 1.0 / 60.0
"""Time between two looks at what comes to rest, while cues are captured."""

LANDED = 0.05
"""A recall that lands within so many beats has begun."""

UNDO_KEPT = 50
"""Most changes of the list that can be taken back."""

PLACE = "cue"
"""Key of the place in the list among what a restart brings back."""


class Cues:
    """The cue list. `start` and `stop` are idempotent.

    Args:
        store: the live controls.
        telemetry: receives the readings and the errors.
        path: the TOML file of the list.
        snapshots: the stored snapshots, which must be started before.
        beat: the beat and what waits for it.
        session: keeps the place over a restart.
        expected: whether it is said that there is no file.
        clock: the time in ns.

    Attributes:
        runner: plays the list.
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        path: Path,
        snapshots: Snapshots,
        beat: TempoService,
        session: Session,
        expected: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._beat = beat
        self._session = session
        self._now = clock
        self._wake = threading.Event()
        self.runner = CueRunner(
            store,
            lambda: beat.tempo,
            beat.changes,
            snapshots.values_of,
            lambda number: snapshots.all().get(number, {}),
            telemetry.error,
            clock,
            self._wake.set,
        )
        self._editing = threading.Lock()  # while the list is exchanged for another one
        self._before: deque[CueList] = deque(maxlen=UNDO_KEPT)
        self._keeper = Keeper(path, store.table, self._adopt, telemetry.error, expected)
        self._capturing = threading.Lock()
        self._capture: Capture | None = None
        self._recalled: tuple[int, float] | None = None  # asked for, and not seen yet
        self._placed: tuple[int, str] | None = None
        self._tell_ns = 0
        self._service = Service("cues", self._run, telemetry.error, self._wake.set)
        self._undo: list[Callable[[], None]] = []

    @property
    def cues(self) -> CueList:
        """The list."""
        return self.runner.cues

    def start(self) -> Cues:
        """Read the list, take the place of the last time, obey the commands and begin to play."""
        if self._undo:
            return self
        self._keeper.start()
        self._before.clear()
        self._take_place()
        runner, table = self.runner, self._store.table
        handlers: dict[Command, Callable[[tuple[Any, ...], Caller], object]] = {
            GO_ON: lambda args, caller: runner.go(),
            BACK: lambda args, caller: runner.back(),
            JUMP: lambda args, caller: runner.jump(editing.target(args)),
            PAUSE: lambda args, caller: runner.pause(),
            STOP: lambda args, caller: runner.stop(),
            ADD: lambda args, caller: self._edit(lambda cues: editing.added(cues, self._look(), *args), caller),
            REMOVE: lambda args, caller: self._edit(lambda cues: editing.removed(cues, *args), caller),
            MOVE: lambda args, caller: self._edit(lambda cues: editing.moved(cues, *args), caller),
            NAME: lambda args, caller: self._edit(lambda cues: editing.named(cues, table, *args), caller),
            WAIT: lambda args, caller: self._edit(lambda cues: editing.waiting(cues, table, *args), caller),
            GLIDE: lambda args, caller: self._edit(lambda cues: editing.gliding(cues, table, *args), caller),
            LOOP: lambda args, caller: self._edit(lambda cues: editing.looped(cues, *args), caller),
            UNDO: lambda args, caller: self._take_back(caller),
            CANCEL: lambda args, caller: self._cancelled(),
            RECALL: lambda args, caller: self._note_recall(*args),
        }
        self._undo = [self._store.on(row.name, self._handler(act)) for row, act in handlers.items()]
        self._undo.append(self._store.listen(self._note))
        self._switch_capture(self._store.snapshot.of(CueControls).cue_capture)
        self._service.start()
        return self

    def stop(self) -> None:
        """Stop playing, write what is captured and not written yet, and obey nothing more."""
        for undo in self._undo:
            undo()
        self._undo = []
        self._service.stop()
        self._tell()
        self._switch_capture(False)
        self._keeper.stop()

    def replace(self, cues: CueList, caller: Caller | None = None) -> CueList:
        """Put another list in the place of this one, before its first cue; `/cue/undo` takes it back.

        Args:
            cues: the list; must be valid.
            caller: is told if the file cannot be written.

        Returns:
            The list that there was.
        """
        return self._edit(lambda old: editing.replaced(old, cues), caller or Caller(INTERNAL))

    def _handler(self, act: Callable[[tuple[Any, ...], Caller], object]) -> Callable[[tuple[Any, ...], Caller], None]:
        def handle(args: tuple[Any, ...], caller: Caller) -> None:
            act(args, caller)
            self._wake.set()

        return handle

    # The list

    def _edit(self, edit: Callable[[CueList], editing.Edit], caller: Caller) -> CueList:
        """Exchange the list for what `edit` makes of it; returns the old one."""
        with self._editing:
            before = self.cues
            made = edit(before)
            self._before.append(before)
            self.runner.use(made.cues, made.places)
            self._keeper.write(made.cues, caller)
            return before

    def _take_back(self, caller: Caller) -> None:
        with self._editing:
            if not self._before:
                raise CueError("There is no change of the list to take back.")
            before = self._before.pop()
            self.runner.use(before)
            self._keeper.write(before, caller)

    def _adopt(self, cues: CueList) -> bool:
        """The file was read for the first time, or changed by somebody else. Returns whether its list is taken: not
        while a change that was made here is to be written."""
        with self._editing:
            if self._keeper.waiting:
                return False
            if cues != self.cues:
                self._before.append(self.cues)
                self.runner.use(cues)
            return True

    def _take_place(self) -> None:
        """Go to the place of the last time: its values are set by nobody, and the next cue waits for GO."""
        kept = self._session.get(PLACE)
        if isinstance(kept, dict):
            number, name = kept.get("number"), kept.get("name")
            at = self.cues.index_of_name(name) if isinstance(name, str) and name else None
            at = self.cues.index(number) if at is None else at
            if at is not None:
                self.runner.take_place(at)

    def _look(self) -> dict[str, Any]:
        values = self._store.values()
        return {name: values[name] for name in stored_names(self._store.table)}

    # Capture

    def _note(self, name: str, value: Any, origin: Origin) -> None:
        """A control was set: on the thread that has set it."""
        self.runner.note_write(name, origin)
        if name == "cue_capture":
            self._switch_capture(bool(value))
        elif self._capture is not None and (origin.trust is not Trust.OPERATOR or origin == SNAPSHOT):
            with self._capturing:
                if self._capture is not None and origin == SNAPSHOT:
                    self._take_recalled(name)
                elif self._capture is not None:
                    self._capture.note(self._store.table.by_name[name], value, self._moment())

    def _note_recall(self, number: int, seconds: float = 0.0) -> None:
        """A snapshot was recalled, or waits for the beat."""
        with self._capturing:
            if self._capture is not None:
                self._recalled = number, seconds
                self._take_recalled()

    def _take_recalled(self, name: str = "") -> None:
        """Capture the recall that was asked for, if it waits no more, or has begun to set this control."""
        waits = [row.beat for row in self._beat.changes.pending if row.what == RECALL.name]
        if waits and name:
            seen_ns = self._now() + self._beat.changes.lead_ns(name)
            waits = [beat for beat in waits if beat > self._beat.tempo.beat_at(seen_ns) + LANDED]
        if self._capture is not None and self._recalled is not None and not waits:
            self._capture.recall(*self._recalled, self._moment())
            self._recalled = None

    def _cancelled(self) -> None:
        self.runner.taken_back()
        with self._capturing:
            self._recalled = None

    def _switch_capture(self, on: bool) -> None:
        with self._capturing:
            capture, room = self._capture, MAX_CUES - len(self.cues.cue)
            if on and capture is None:
                name = editing.free_name(self.cues, "Take")
                self._capture = Capture(name, self._look(), self._moment(), room) if room > 0 else None
                self._recalled = None
            elif not on:
                self._capture = None
        if on and capture is None and room <= 0:
            self._telemetry.error("cue", f"The list has {MAX_CUES} cues; nothing is captured. Remove cues first.")
            self._store.set("cue_capture", False, INTERNAL)
        if not on and capture is not None:
            try:
                self._edit(lambda cues: editing.appended(cues, capture.cues()), Caller(INTERNAL))
            except CueError as error:
                self._telemetry.error("cue", error.message)

    def _moment(self) -> Moment:
        ns, tempo = self._now(), self._beat.tempo
        return Moment(ns / 1e9, tempo.beat_at(ns) if tempo.moving else None)

    def _settle(self) -> None:
        with self._capturing:
            capture = self._capture
            if capture is None:
                return
            self._take_recalled()
            capture.settle(self._now() / 1e9)
        if capture.full:
            self._store.set("cue_capture", False, INTERNAL)
            self._telemetry.error("cue", f"A list has {MAX_CUES} cues at most; the capture has ended.")

    # The thread

    def _run(self) -> None:
        while not self._service.stopping.is_set():
            self._wake.clear()
            wait_s = self.runner.tick()
            self._settle()
            ns = self._now()
            if ns >= self._tell_ns:
                self._tell_ns = ns + TELL_NS
                self._tell()
            self._wake.wait(wait_s if self._capture is None else min(wait_s, CAPTURE_S))

    def _tell(self) -> None:
        view = self.runner.view()
        self._telemetry.update(
            cue=view.name,
            cue_number=view.number,
            cue_next=view.next_name,
            cue_next_number=view.next_number,
            cue_remaining=round(view.remaining, 2),
            cue_unit=view.unit,
            cue_count=view.count,
            cue_state=str(view.state),
        )
        place = view.number, view.name
        if place != self._placed and view.count:
            self._placed = place
            self._session.put(PLACE, {"number": view.number, "name": view.name})
