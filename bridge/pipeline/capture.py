"""The capture thread: has the chosen sources read, and makes the frames that the rest of the bridge works with.

The source of the input is read by a thread of its own (see `SourceSwitch`), which also runs the input stages on its
frames. Second inputs, such as that of the matte, are kept in the same way.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from bridge.control.store import ControlStore
from bridge.pipeline.canvas.scaling import reduced
from bridge.pipeline.canvas.shape import stretched
from bridge.pipeline.canvas.size import CanvasControls, Size, canvas_size
from bridge.pipeline.endpoints.opening import OpeningService
from bridge.pipeline.endpoints.source_switch import SourceSwitch
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.mask.second_input import SecondInputs
from bridge.pipeline.stages.base import Context, Place, StageRow
from bridge.pipeline.stages.chain import StageChain
from bridge.video.base import Options, SourceInfo
from engine.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

CHECK_S = 0.1
"""Longest time between two checks of the readers, in s."""

LOST_S = 1.0
"""After this long without a frame the input counts as lost, in s."""

STOP_S = 3.0
"""Longest wait for the sources to be closed at the end, in s."""


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
        source: the source of the input.
        second: the second inputs of the mask.
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
        self.model = self._made_for = (width, height)
        self.stages = StageChain(stages, Place.INPUT, width, height, tell)
        self._store = store
        self._pass_on = take
        self._changed = threading.Event()
        self.source = SourceSwitch(
            "input", "/input", uri, options, store, inputs, self._take, tell, self._changed.set, self.report_defect
        )
        self._seq = 0
        self.arrived_at: deque[int] = deque(maxlen=600)
        self._last_arrival = 0.0
        self.history = FrameHistory()
        self.second = SecondInputs(self.history, options, store, inputs, tell, self._changed.set, self.report_defect)
        self.stretched = ""
        self._canvas: Size | None = None  # of the last frame; None to look at its shape anew

    @property
    def lost(self) -> bool:
        """Whether no frame has come for `LOST_S`."""
        return time.monotonic() - max(self._last_arrival, self.source.began) > LOST_S

    @property
    def skipped(self) -> int:
        """Frames that were replaced by newer ones before they could be read."""
        return self.source.skipped

    @property
    def info(self) -> SourceInfo | None:
        """The source that is open."""
        return self.source.info

    @property
    def problem(self) -> str:
        """Why there is no picture, as a sentence; empty when there is no problem."""
        return self.source.problem

    def _open(self) -> None:
        self.source.open_first(self._wait)

    def _work(self) -> None:
        switches = [self.source, *(second.source for second in self.second.inputs)]
        unfollow = [switch.follow() for switch in switches]
        try:
            while not self.stopping.is_set():
                for step in (self.source.step, *(second.step for second in self.second.inputs)):
                    try:
                        step()
                    except Exception as error:  # the choice of the input must survive whatever it meets
                        self.report_defect(error)
                self._wait()
        finally:
            for end in (*unfollow, *(switch.end for switch in switches)):
                end()
            until = time.monotonic() + STOP_S
            for switch in switches:
                switch.join(until - time.monotonic())

    def _wait(self) -> bool:
        """Wait for the next check, or for what makes one necessary now; returns whether to go on."""
        self._changed.wait(CHECK_S)
        self._changed.clear()
        return not self.stopping.is_set()

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
                self.source.complain(
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
