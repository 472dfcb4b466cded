"""The capture thread: reads the newest frame of the chosen source and runs the input stages on it.

The source can be switched while it runs; when the new one cannot be opened, the old one is kept.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from bridge.control.store import ControlStore
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.input_controls import InputControls
from bridge.pipeline.opening import OpeningService
from bridge.pipeline.stages.base import Context, Place, StageRow
from bridge.pipeline.stages.chain import StageChain
from bridge.video.base import Options, Source, SourceInfo
from bridge.video.opening import open_source
from engine.errors import TransportError
from engine.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

READ_S = 0.1
"""Longest wait for a frame before the controls are checked again, in s."""

LOST_S = 1.0
"""After this long without a frame the input counts as lost, in s."""

RETRY_S = 1.0
"""Pause before a source that could not be opened or read is tried again."""


class Capture(OpeningService):
    """Reads frames from a source and passes them on at the model's size.

    Args:
        uri: the source at the start; the control `input` overrides it when it is not empty.
        options: preferences for the source.
        width, height: the model's size in pixels.
        store: live controls (`input`, and those of the stages).
        stages: the table of stages; those of the input run here and must give RGB frames of the model's size.
        inputs: returns the last list of sources that was shown, for a choice by index.
        take: called with every frame; must be quick.
        tell: called with (topic, text) when something goes wrong.

    Attributes:
        history: the frames of the last seconds, for the stages.
        stages: the stages of the input.
        arrived_at: `time.monotonic_ns()` of the last frames.
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
        take: Callable[[Frame], None],
        tell: Callable[[str, str], None],
    ) -> None:
        super().__init__("capture", tell)
        self._start_uri = uri
        self._options = options
        self.width, self.height = width, height
        self.stages = StageChain(stages, Place.INPUT, width, height, tell)
        self._store = store
        self._inputs = inputs
        self._pass_on = take
        self._report = tell
        self._source: Source | None = None
        self._wanted = ""
        self._retry_at = 0.0
        self._reported_problem = ""
        self._seq = 0
        self.arrived_at: deque[int] = deque(maxlen=600)
        self._last_arrival = 0.0
        self._began = 0.0
        self._skipped_before = 0
        self.history = FrameHistory(width * height * 3)

    @property
    def lost(self) -> bool:
        """Whether no frame has come for `LOST_S`."""
        return time.monotonic() - max(self._last_arrival, self._began) > LOST_S

    @property
    def skipped(self) -> int:
        """Frames that were replaced by newer ones before they could be read."""
        source = self._source
        return self._skipped_before + (source.skipped if source is not None else 0)

    @property
    def info(self) -> SourceInfo | None:
        """The source that is open."""
        source = self._source
        return source.info if source is not None else None

    @property
    def problem(self) -> str:
        """Why there is no picture, as a sentence; empty when there is no problem."""
        source = self._source
        return source.problem if source is not None else ""

    def _open(self) -> None:
        try:
            self._wanted = self._choice()
            self._source = open_source(self._wanted, self._options)
        finally:
            self._began = time.monotonic()

    def _work(self) -> None:
        try:
            while not self.stopping.is_set():
                self._step()
        finally:
            self._close()

    def _step(self) -> None:
        """Switch sources if another one is wanted, and read the next frame."""
        self._switch()
        source = self._source
        if source is None:
            self.stopping.wait(READ_S)
            return
        try:
            frame = source.read(READ_S)
        except TransportError as error:
            self._complain(str(error))
            self._close()
            self._retry_at = time.monotonic() + RETRY_S
            return
        if frame is not None:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        context = Context(time.monotonic_ns(), self.history, self._store.snapshot, wet=False)
        for made in self.stages.run(frame, context):
            if made.format is not PixelFormat.RGB or (made.width, made.height) != (self.width, self.height):
                self._complain(
                    f"The input gives {made.format.value} pictures of {made.width}x{made.height}, and no stage has "
                    f"fitted them. They are dropped: the engine takes rgb pictures of {self.width}x{self.height} only."
                )
                continue
            numbered = dataclasses.replace(made, seq=self._seq, metadata={})
            self._seq += 1
            self._last_arrival = time.monotonic()
            self.arrived_at.append(time.monotonic_ns())
            self.history.add(numbered)
            self._pass_on(numbered)

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

    def _switch(self) -> None:
        """Open another source when another one is wanted; keep the old one when that fails."""
        try:
            wanted = self._choice()
        except TransportError as error:
            wanted = self._store.snapshot.of(InputControls).input
            if wanted != self._wanted:
                self._wanted = wanted
                self._complain(str(error))
            return
        if wanted == self._wanted and (self._source is not None or time.monotonic() < self._retry_at):
            return
        self._wanted = wanted
        if self._source is not None and wanted == self._source.uri:
            return
        try:
            source = open_source(wanted, self._options)
        except TransportError as error:
            self._retry_at = time.monotonic() + RETRY_S
            self._complain(str(error))
            return
        self._reported_problem = ""
        self._close()
        self._source = source
        self._began = time.monotonic()
        log.info("input: %s", wanted)

    def _complain(self, text: str) -> None:
        """Report a problem with the input once, however often the source is tried again."""
        if text != self._reported_problem:
            self._reported_problem = text
            self._report("/input", text)

    def _close(self) -> None:
        if self._source is not None:
            self._skipped_before += self._source.skipped
            self._source.close()
            self._source = None
