"""The capture thread: the newest frame of the chosen source, through the stages of the input, for everybody.

Switches sources live, holds on to the old one when the new one cannot be opened, and never ends before it is told
to. It knows transports only through `bridge.video.base`, and knows neither the engine nor the output.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from bridge.control.store import ControlStore
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.input_controls import InputControls
from bridge.pipeline.stages.base import Context, Place, StageRow
from bridge.pipeline.stages.chain import StageChain
from bridge.process.priority import raise_thread_priority
from bridge.service import Service
from bridge.video.base import Options, Source, SourceInfo
from bridge.video.opening import open_source
from engine.errors import TransportError
from engine.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

READ_S = 0.1
"""Longest wait for a frame before the controls are looked at again."""

LOST_S = 1.0
"""Without a frame for this long the input counts as lost."""


class Capture(Service):
    """Receives frames and puts them into the engine's inbox.

    Args:
        uri: the source at the start; the control `input` takes over when it is not empty.
        options: wishes for the source.
        width, height: the model's size in pixels.
        store: live controls (`input`, and those of the stages).
        stages: the table of stages, of which those of the input run here; what leaves them has the model's size.
        inputs: the last list of sources that was shown, for a choice by index.
        take: receives every fitted frame; must be quick.
        tell: receives (topic, text) about what goes wrong.

    Attributes:
        history: the frames, for the stages that look back.
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
        super().__init__("capture", tell=tell)
        self._start_uri = uri
        self._options = options
        self.width, self.height = width, height
        self.stages = StageChain(stages, Place.INPUT, width, height, tell)
        self._store = store
        self._inputs = inputs
        self._give = take
        self._report = tell
        self._opened = threading.Event()
        self._refused: TransportError | None = None
        self._source: Source | None = None
        self._wanted = ""
        self._retry_at = 0.0
        self._complained = ""
        self._seq = 0
        self.arrived_at: deque[int] = deque(maxlen=600)
        self._last_arrival = 0.0
        self._began = 0.0
        self._skipped_before = 0
        self.history = FrameHistory(width * height * 3)

    def start(self) -> None:
        """Open the source, on the thread that will read it, and begin.

        Raises:
            TransportError: if the source cannot be opened at all.
        """
        super().start()
        self._opened.wait()
        if self._refused is not None:
            self.stop()
            raise self._refused

    @property
    def lost(self) -> bool:
        """Whether no frame came for a while."""
        return time.monotonic() - max(self._last_arrival, self._began) > LOST_S

    @property
    def skipped(self) -> int:
        """Frames that came but were replaced by newer ones before they could be read."""
        source = self._source
        return self._skipped_before + (source.skipped if source is not None else 0)

    @property
    def info(self) -> SourceInfo | None:
        """The source that is open."""
        source = self._source
        return source.info if source is not None else None

    @property
    def problem(self) -> str:
        """Why there is no picture, in words; empty when there is nothing to say."""
        source = self._source
        return source.problem if source is not None else ""

    def _run(self) -> None:
        raise_thread_priority()
        try:
            self._wanted = self._choice()
            self._source = open_source(self._wanted, self._options)
        except TransportError as error:
            if self._opened.is_set():
                raise  # begun again after a defect: the service tries until it opens
            self._refused = error
            return
        finally:
            self._began = time.monotonic()
            self._opened.set()
        try:
            while not self.stopping.is_set():
                self._step()
        finally:
            self._close()

    def _step(self) -> None:
        """Switch sources if another is wanted, and take the next frame."""
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
            self._retry_at = time.monotonic() + 1.0
            return
        if frame is not None:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        context = Context(time.monotonic_ns(), self.history, self._store.snapshot, wet=False)
        for made in self.stages.run(frame, context):
            if made.format is not PixelFormat.RGB or (made.width, made.height) != (self.width, self.height):
                continue  # the stage that fits failed, and said so; the engine takes nothing else
            numbered = dataclasses.replace(made, seq=self._seq, metadata={})
            self._seq += 1
            self._last_arrival = time.monotonic()
            self.arrived_at.append(time.monotonic_ns())
            self.history.add(numbered)
            self._give(numbered)

    def _choice(self) -> str:
        """The uri that is wanted now; an index stands for a line of the last list of inputs."""
        wanted = self._store.snapshot.of(InputControls).input.strip() or self._start_uri
        if wanted.isdecimal():
            listed = self._inputs()
            if int(wanted) < len(listed):
                return listed[int(wanted)].uri
            raise TransportError(
                f"There is no input number {wanted}.", f"The list has {len(listed)}; ask for it with /tidecast/inputs."
            )
        return wanted

    def _switch(self) -> None:
        """Open another source when another is wanted; keep the old one when that fails."""
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
            self._retry_at = time.monotonic() + 1.0
            self._complain(str(error))
            return
        self._complained = ""
        self._close()
        self._source = source
        self._began = time.monotonic()
        log.info("input: %s", wanted)

    def _complain(self, text: str) -> None:
        """Say once what is wrong with the input, however often it is tried again."""
        if text != self._complained:
            self._complained = text
            self._report("/input", text)

    def _close(self) -> None:
        if self._source is not None:
            self._skipped_before += self._source.skipped
            self._source.close()
            self._source = None
