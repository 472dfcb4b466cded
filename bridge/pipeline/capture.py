"""The capture thread: chooses the source, and gives up and tries again what does not work.

Every source is read by a thread of its own (`SourceReader`), which also runs the input stages on its frames. A source
that hangs therefore delays neither the choice of another one nor the end of the program. A new source replaces the old
one when it is open; when it cannot be opened, the old one is kept.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from bridge.control.origin import Origin
from bridge.control.store import ControlStore
from bridge.pipeline.canvas.scaling import reduced
from bridge.pipeline.canvas.shape import stretched
from bridge.pipeline.canvas.size import CanvasControls, Size, canvas_size
from bridge.pipeline.endpoints.endpoint_thread import HANG_S
from bridge.pipeline.endpoints.opening import OpeningService
from bridge.pipeline.endpoints.retry import Backoff
from bridge.pipeline.endpoints.source_reader import SourceReader
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.input_controls import InputControls
from bridge.pipeline.stages.base import Context, Place, StageRow
from bridge.pipeline.stages.chain import StageChain
from bridge.video.base import Options, SourceInfo
from engine.errors import TransportError
from engine.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

CHECK_S = 0.1
"""Longest time between two checks of the readers, in s."""

LOST_S = 1.0
"""After this long without a frame the input counts as lost, in s."""

STOP_S = 3.0
"""Longest wait for the sources to be closed at the end, in s."""

MAX_LEAVING = 4
"""Sources of one transport that may still be closing or hanging when another one is opened. With more of them it has to
wait, so that choosing inputs that hang does not fill the machine with threads."""

MAX_REPORTED = 32
"""Most texts that are remembered so as not to be reported again."""


class Capture(OpeningService):
    """Reads frames from a source and passes them on at the size of the canvas and at the model's.

    Args:
        uri: the source at the start; the control `input` overrides it when it is not empty.
        options: preferences for the source.
        width, height: the model's size in pixels at the start.
        store: live controls (`input`, and those of the stages).
        stages: the table of stages; those of the input run here and must give RGB frames of the canvas.
        inputs: returns the last list of sources that was shown, for a choice by index.
        take: called with every frame of the canvas and the same frame at the model's size, on a source's thread but
            never twice at once; must be quick.
        tell: called with (topic, text) when something goes wrong.

    Attributes:
        history: the frames of the last seconds, for the stages.
        stages: the stages of the input.
        model: the model's size; may be set from any thread, and is obeyed from the next frame on.
        arrived_at: `time.monotonic_ns()` of the last frames.
        stretched: that the model's picture is stretched to the canvas, and what to do, as a sentence; else empty.
    """

    def __init__(
        self,
        uri: str,
        options: Options,
        width: int,
        height: int,
        store: ControlStore,
        stages: Sequence[StageRow],
        inputs: Callable[[], Sequence[SourceInfo]],
        take: Callable[[Frame, Frame], None],
        tell: Callable[[str, str], None],
    ) -> None:
        super().__init__("capture", f"The input {uri}", tell)
        self._start_uri = uri
        self._options = options
        self.model = self._made_for = (width, height)
        self.stages = StageChain(stages, Place.INPUT, width, height, tell)
        self._store = store
        self._inputs = inputs
        self._pass_on = take
        self._report = tell
        self._lock = threading.Lock()  # held while a frame passes the stages and while sources change
        self._current: SourceReader | None = None  # whose frames are shown
        self._pending: SourceReader | None = None  # being opened
        self._leaving: list[SourceReader] = []  # told to end
        self._wanted = ""
        self._choice_made = object()  # another object after each write of the control
        self._resolved: object = None  # the one for which `_wanted` was found
        self._backoff = Backoff()
        self._changed = threading.Event()
        self._failure = ""
        self._complaints: set[str] = set()
        self._seq = 0
        self.arrived_at: deque[int] = deque(maxlen=600)
        self._last_arrival = 0.0
        self._began = 0.0
        self._skipped_before = 0
        self.history = FrameHistory()
        self.stretched = ""
        self._canvas: Size | None = None  # of the last frame; None to look at its shape anew

    @property
    def lost(self) -> bool:
        """Whether no frame has come for `LOST_S`."""
        return time.monotonic() - max(self._last_arrival, self._began) > LOST_S

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

    def _open(self) -> None:
        try:
            self._wanted, self._resolved = self._choice(), self._choice_made
            with self._lock:
                reader = self._pending = self._reader(self._wanted)
            while self._current is not reader and not reader.ended and not self.stopping.is_set():
                self._changed.wait(CHECK_S)
                self._changed.clear()
            if reader.ended and reader.error:
                self._current = self._pending = None
                raise TransportError(reader.error)
        finally:
            self._began = time.monotonic()

    def _work(self) -> None:
        unlisten = self._store.listen(self._note_choice)
        self._choice_made = object()  # it may have been written while the first source was opened
        try:
            while not self.stopping.is_set():
                try:
                    self._step()
                except Exception as error:  # the choice of the input must survive whatever it meets
                    self.report_defect(error)
                self._changed.wait(CHECK_S)
                self._changed.clear()
        finally:
            unlisten()
            self._end_all()

    def _note_choice(self, name: str, value: object, origin: Origin) -> None:
        if name == "input":
            self._choice_made = object()
            self._changed.set()

    def _step(self) -> None:
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
                    self._complain(_no_answer(reader))
            if pending is not None and pending.uri != self._wanted:
                self._end(pending)
                pending = self._pending = None
            if pending is not None or (current is not None and current.uri == self._wanted):
                return
            if self._backoff.over and self._may_open(self._wanted):
                self._pending = self._reader(self._wanted)

    def _resolve(self) -> None:
        """Find the address that is wanted. An index is looked up once, when it is chosen: a new list of inputs does not
        change the picture."""
        choice = self._choice_made
        if choice is self._resolved:
            return
        try:
            self._wanted = self._choice()
        except TransportError as error:
            self._complain(str(error))
            return
        self._resolved = choice
        if self._current is None or self._current.uri != self._wanted:  # else nothing is opened or told anew
            self._complaints.clear()
            self._backoff.reset()

    def _choice(self) -> str:
        """The uri of the source that is wanted now; a number is an index into the last list of inputs."""
        wanted = self._store.snapshot.of(InputControls).input.strip() or self._start_uri
        if wanted.isdecimal():
            listed = self._inputs()
            if int(wanted) < len(listed):
                return listed[int(wanted)].uri
            raise TransportError(
                f"There is no input number {wanted}.",
                f"The list of inputs has {len(listed)} entries; ask for it with /tidecast/inputs.",
            )
        return wanted

    def _reader(self, uri: str) -> SourceReader:
        return SourceReader(uri, self._options, self._adopt, self._received, lambda reader: self._changed.set())

    def _may_open(self, uri: str) -> bool:
        """Whether enough earlier sources have been closed; says so when they hang."""
        same = [reader for reader in self._leaving if reader.uri == uri]
        scheme = uri.partition(":")[0]
        kin = [reader for reader in self._leaving if reader.uri.partition(":")[0] == scheme]
        if not same and len(kin) < MAX_LEAVING:
            return True
        for reader in same or kin:
            if reader.hangs:
                self._complain(_no_answer(reader))
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
            self._began = time.monotonic()
        self._changed.set()
        log.info("input: %s", reader.uri)

    def _received(self, reader: SourceReader, frame: Frame) -> None:
        """Take a frame if its source is the one that is shown. Called on the source's thread."""
        with self._lock:
            if reader is not self._current:
                return
            try:
                self._take(frame)
            except Exception as error:  # one bad frame: the source stays open
                self.report_defect(error)
            if self._backoff.worked():
                self._complaints.clear()

    def _take(self, frame: Frame) -> None:
        controls, model = self._store.modulated(time.monotonic_ns()), self.model
        if model != self._made_for:
            self._made_for, self._canvas = model, None
            self.history.forget()  # its small frames have the size of the engine before
            self.stages.remake(*model)
        canvas = canvas_size(controls.of(CanvasControls).output_size, model, (frame.width, frame.height))
        if canvas != self._canvas:
            self._canvas = canvas
            self._compare_shapes(model, canvas)
        context = Context(time.monotonic_ns(), self.history, controls, wet=False, canvas=canvas)
        for made in self.stages.run(frame, context):
            if made.format is not PixelFormat.RGB or (made.width, made.height) != canvas:
                self._complain(
                    f"The input gives {made.format.value} pictures of {made.width}x{made.height}, and no stage has "
                    f"fitted them. They are dropped: only rgb pictures of {canvas[0]}x{canvas[1]} are taken."
                )
                continue
            numbered = dataclasses.replace(made, seq=self._seq, metadata={})
            self._seq += 1
            self._last_arrival = time.monotonic()
            self.arrived_at.append(time.monotonic_ns())
            small = numbered
            if canvas != model:
                small = dataclasses.replace(numbered, pixels=reduced(numbered.pixels, *model), alpha=None)
            self.history.add(numbered, small)
            self._pass_on(numbered, small)

    def _compare_shapes(self, model: Size, canvas: Size) -> None:
        """Say, once for every canvas and every model, that the model's picture is stretched to it."""
        self.stretched = stretched(model, canvas)
        if self.stretched:
            log.warning("output: %s", self.stretched)

    def _fail(self, reader: SourceReader) -> None:
        """Give up a source that has ended by itself; it is opened again when the back-off is over."""
        self._failure = reader.error
        self._backoff.failed()
        self._complain(reader.error)
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

    def _end_all(self) -> None:
        with self._lock:
            for reader in (self._current, self._pending):
                self._end(reader)
            self._current = self._pending = None
            leaving, self._leaving = self._leaving, []
        until = time.monotonic() + STOP_S
        for reader in leaving:
            if not reader.join(until - time.monotonic()):
                log.warning("the input %s does not answer and is left behind", reader.uri)

    def _complain(self, text: str) -> None:
        """Report a problem with the input once, however often the source is tried again."""
        if text in self._complaints:
            return
        if len(self._complaints) >= MAX_REPORTED:
            self._complaints.clear()
        self._complaints.add(text)
        self._report("/input", text)


def _no_answer(reader: SourceReader) -> str:
    return f"{reader.uri} has not answered for {HANG_S:g} s or longer."
