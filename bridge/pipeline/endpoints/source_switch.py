"""The source that a control chooses: opened, watched, exchanged, given up and tried again.

Every source is read by a thread of its own (`SourceReader`). A source that hangs therefore delays neither the choice of
another one nor the end of the program. A new source replaces the old one when it is open; when it cannot be opened, the
old one is kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from bridge.control.origin import Origin
from bridge.control.store import ControlStore
from bridge.pipeline.endpoints.endpoint_thread import HANG_S
from bridge.pipeline.endpoints.retry import Backoff
from bridge.pipeline.endpoints.source_reader import SourceReader
from bridge.video.base import Options, SourceInfo
from engine.errors import TransportError
from engine.frame import Frame

log = logging.getLogger(__name__)

MAX_LEAVING = 4
"""Sources of one transport that may still be closing or hanging when another one is opened. With more of them it has to
wait, so that choosing inputs that hang does not fill the machine with threads."""

MAX_REPORTED = 32
"""Most texts that are remembered so as not to be reported again."""


class SourceSwitch:
    """One source, as a control chooses it. Its owner calls `step` again and again, on one thread.

    Args:
        control: name of the control: the address of a source, or an index into the list of inputs.
        topic: under which problems are told.
        start_uri: the source while the control is empty; empty for none.
        options: preferences for the source.
        store: live controls.
        inputs: returns the last list of sources that was shown, for a choice by index.
        take: called with every frame of the source that is shown, on its thread but never twice at once; must be quick.
        tell: called with (topic, text) when something goes wrong, but not again with the same text until it works.
        wake: called from any thread when there is something to do for `step`.
        defect: called with what `take` raises.

    Attributes:
        began: when the source was last opened or tried at the start, as `time.monotonic()`.
    """

    def __init__(
        self,
        control: str,
        topic: str,
        start_uri: str,
        options: Options,
        store: ControlStore,
        inputs: Callable[[], Sequence[SourceInfo]],
        take: Callable[[Frame], None],
        tell: Callable[[str, str], None],
        wake: Callable[[], None],
        defect: Callable[[BaseException], None],
    ) -> None:
        self._control = control
        self._topic = topic
        self._start_uri = start_uri
        self._options = options
        self._store = store
        self._inputs = inputs
        self._pass_on = take
        self._report = tell
        self._wake = wake
        self._defect = defect
        self._lock = threading.Lock()  # held while a frame is passed on and while sources change
        self._current: SourceReader | None = None  # whose frames are shown
        self._pending: SourceReader | None = None  # being opened
        self._leaving: list[SourceReader] = []  # told to end
        self._wanted = ""
        self._choice_made = object()  # another object after each write of the control
        self._resolved: object = None  # the one for which `_wanted` was found
        self._backoff = Backoff()
        self._failure = ""
        self._complaints: set[str] = set()
        self._skipped_before = 0
        self.began = 0.0

    @property
    def skipped(self) -> int:
        """Frames that were replaced by newer ones before they could be read."""
        reader = self._current
        return self._skipped_before + (reader.skipped if reader is not None else 0)

    @property
    def info(self) -> SourceInfo | None:
        """The source that is open."""
        reader = self._current
        return reader.info if reader is not None else None

    @property
    def problem(self) -> str:
        """Why there is no picture, as a sentence; empty when there is no problem."""
        reader = self._current
        if reader is None:
            return self._failure
        return _no_answer(reader) if reader.hangs else reader.problem

    def follow(self) -> Callable[[], None]:
        """Obey the control from now on; returns a function that ends it."""
        unlisten = self._store.listen(self._note_choice)
        self._choice_made = object()  # it may have been written before
        return unlisten

    @property
    def uri(self) -> str:
        """The address of the source that is open; empty for none."""
        reader = self._current
        return reader.uri if reader is not None else ""

    def open_first(self, wait: Callable[[], bool]) -> None:
        """Open the source that is wanted, and wait until it is open or has failed.

        Args:
            wait: waits a moment, or until `wake` is called; returns whether to go on.

        Raises:
            TransportError: it cannot be opened.
        """
        try:
            self._wanted, self._resolved = self.choice(), self._choice_made
            with self._lock:
                reader = self._pending = self._reader(self._wanted)
            while self._current is not reader and not reader.ended and wait():
                pass
            if reader.ended and reader.error:
                self._current = self._pending = None
                raise TransportError(reader.error)
        finally:
            self.began = time.monotonic()

    def step(self) -> None:
        """Find out which source is wanted, give up those that have ended, and open what is missing."""
        self._resolve()
        with self._lock:
            self._leaving = [reader for reader in self._leaving if reader.alive]
            for reader in (self._current, self._pending):
                if reader is not None and reader.ended:
                    self._fail(reader)
            current, pending = self._current, self._pending
            for reader in (current, pending):
                if reader is not None and reader.hangs:
                    self.complain(_no_answer(reader))
            if pending is not None and pending.uri != self._wanted:
                self._end(pending)
                pending = self._pending = None
            if not self._wanted:
                self._failure = ""
                if current is not None:
                    self._drop(current)
                    self._current = None
                return
            if pending is not None or (current is not None and current.uri == self._wanted):
                return
            if self._backoff.over and self._may_open(self._wanted):
                self._pending = self._reader(self._wanted)

    def choice(self) -> str:
        """The address of the source that is wanted now; empty for none.

        Raises:
            TransportError: there is no input of the number that is chosen.
        """
        wanted = str(self._store.snapshot.value(self._control)).strip() or self._start_uri
        if wanted.isdecimal():
            listed = self._inputs()
            if int(wanted) < len(listed):
                return listed[int(wanted)].uri
            raise TransportError(
                f"There is no input number {wanted}.",
                f"The list of inputs has {len(listed)} entries; ask for it with /tidecast/inputs.",
            )
        return wanted

    def complain(self, text: str) -> None:
        """Report a problem once, however often the source is tried again."""
        if text in self._complaints:
            return
        if len(self._complaints) >= MAX_REPORTED:
            self._complaints.clear()
        self._complaints.add(text)
        self._report(self._topic, text)

    def end(self) -> None:
        """Have all sources closed; returns at once."""
        with self._lock:
            for reader in (self._current, self._pending):
                self._end(reader)
            self._current = self._pending = None

    def join(self, timeout_s: float) -> None:
        """Wait until the sources that were told to end are closed. Those that hang are left behind."""
        leaving, self._leaving = self._leaving, []
        until = time.monotonic() + timeout_s
        for reader in leaving:
            if not reader.join(until - time.monotonic()):
                log.warning("the input %s does not answer and is left behind", reader.uri)

    def _note_choice(self, name: str, value: object, origin: Origin) -> None:
        if name == self._control:
            self._choice_made = object()
            self._wake()

    def _resolve(self) -> None:
        """Find the address that is wanted. An index is looked up once, when it is chosen: a new list of inputs does not
        change the picture."""
        choice = self._choice_made
        if choice is self._resolved:
            return
        try:
            self._wanted = self.choice()
        except TransportError as error:
            self.complain(str(error))
            return
        self._resolved = choice
        if self._current is None or self._current.uri != self._wanted:  # else nothing is opened or told anew
            self._complaints.clear()
            self._backoff.reset()

    def _reader(self, uri: str) -> SourceReader:
        return SourceReader(uri, self._options, self._adopt, self._received, lambda reader: self._wake())

    def _may_open(self, uri: str) -> bool:
        """Whether enough earlier sources have been closed; says so when they hang."""
        same = [reader for reader in self._leaving if reader.uri == uri]
        scheme = uri.partition(":")[0]
        kin = [reader for reader in self._leaving if reader.uri.partition(":")[0] == scheme]
        if not same and len(kin) < MAX_LEAVING:
            return True
        for reader in same or kin:
            if reader.hangs:
                self.complain(_no_answer(reader))
        return False

    def _adopt(self, reader: SourceReader) -> None:
        """Show the frames of a source that is open now, if it is still wanted. Called on its thread."""
        with self._lock:
            if reader is not self._pending:
                return
            if self._current is not None:
                self._drop(self._current)
            self._current, self._pending = reader, None
            self._failure = ""
            self.began = time.monotonic()
        self._wake()
        log.info("%s: %s", self._control.replace("_", " "), reader.uri)

    def _received(self, reader: SourceReader, frame: Frame) -> None:
        """Take a frame if its source is the one that is shown. Called on the source's thread."""
        with self._lock:
            if reader is not self._current:
                return
            try:
                self._pass_on(frame)
            except Exception as error:  # one bad frame: the source stays open
                self._defect(error)
            if self._backoff.worked():
                self._complaints.clear()

    def _fail(self, reader: SourceReader) -> None:
        """Give up a source that has ended by itself; it is opened again when the back-off is over."""
        self._failure = reader.error
        self._backoff.failed()
        self.complain(reader.error)
        if reader is self._current:
            self._drop(reader)
            self._current = None
        else:
            self._pending = None

    def _drop(self, reader: SourceReader) -> None:
        self._skipped_before += reader.skipped
        self._end(reader)

    def _end(self, reader: SourceReader | None) -> None:
        if reader is not None:
            reader.end()
            self._leaving.append(reader)


def _no_answer(reader: SourceReader) -> str:
    return f"{reader.uri} has not answered for {HANG_S:g} s or longer."
