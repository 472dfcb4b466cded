"""The publish thread: sends one picture at every tick of the output clock, whatever the engine and the input do.

Restyled frames go through the stages for restyled frames, wait in the pacer until they are due, and go through the
stages of the tick (such as the mix with the input frame of the same time). The panic buttons act at the next tick. When
the engine is late, the last picture is repeated; when it is gone or gives nothing for too long, the input is shown.

Every output sends the same picture, on a thread of its own: this one waits for none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from bridge.control.store import ControlStore
from bridge.control.values import Snapshot
from bridge.pipeline.canvas.size import CanvasControls, Size, canvas_size
from bridge.pipeline.endpoints.opening import STOP_S
from bridge.pipeline.endpoints.output import Output
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.mask.person import PersonMasks
from bridge.pipeline.pacing.output_clock import sleep_until
from bridge.pipeline.pacing.pacer import Pacer, Pick
from bridge.pipeline.panic import PanicControls
from bridge.pipeline.restyled import Restyled
from bridge.pipeline.stages.base import Context, Place, StageRow
from bridge.pipeline.stages.chain import StageChain
from bridge.pipeline.stages.compare import CompareControls, plain_values
from bridge.process.priority import raise_thread_priority
from bridge.process.supervisor import EngineState, Supervisor
from bridge.service import Service
from bridge.video.alpha import opaque
from engine.frame import Frame

STAGES_SHARE = 0.7
"""Share of a tick that the stages of the tick may take together."""


class Publisher(Service):
    """Sends the picture to the outputs.

    Args:
        outputs: at least one; rate, latency and gaps are those of the first.
        supervisor: gives the restyled frames, and says whether there is an engine.
        history: the input frames, for the stages.
        stages: the table of stages; those for restyled frames and those of the tick run here.
        store: live controls.
        fps: rate of the output in 1/s; 0 follows the source's.
        size: the model's width and height in pixels at the start.
        stall_s: shortest time without a restyled frame, in s, after which the input is shown (see `stall_detector`).
        offer: called at every tick with its frame (for preview and recording), also when the outputs fail; must be
            quick.
        tell: called with (topic, text) when something goes wrong.

    Attributes:
        pacer: the output clock; the capture thread passes it the input frames.
        restyled: the frames that the engine returned; only this thread changes it.
        outputs: the outputs.
        main: the first of them.
        model: the model's size; may be set from any thread, and is obeyed from the next tick on.
        masks: the person masks; the capture thread passes them the input frames.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        supervisor: Supervisor,
        history: FrameHistory,
        stages: Sequence[StageRow],
        store: ControlStore,
        fps: float,
        size: tuple[int, int],
        stall_s: float,
        offer: Callable[[Frame], None],
        tell: Callable[[str, str], None],
    ) -> None:
        super().__init__("publish", tell=tell)
        self.outputs = tuple(outputs)
        self.main = self.outputs[0]
        self._supervisor = supervisor
        self._history = history
        self._store = store
        self._offer = offer
        width, height = size
        self.model = self._made_for = size
        self._restyled_stages = StageChain(stages, Place.RESTYLED, width, height, tell)
        self._tick_stages = StageChain(stages, Place.TICK, width, height, tell)
        self._plain = plain_values(stages)
        canvas = self._canvas(store.snapshot)
        self._black = Frame(np.zeros((canvas[1], canvas[0], 3), np.uint8))
        self._held = self._black
        self._measured = (0, 0)  # `captured_ns` and `shows_ns` of the frame sent last whose latency was measured
        self.pacer = Pacer(Fraction(fps).limit_denominator(1001) if fps else None)
        self.restyled = Restyled(supervisor.from_engine, history, self.pacer, stall_s, self._made, self._forgotten)
        self.masks = PersonMasks(supervisor.masks, history, store, tell)
        self.main.shown = self._shown

    def start(self) -> None:
        """Open the first output and start to send. The others are opened then, and tried again while they cannot be.

        Raises:
            NameTakenError: the first output's name is in use on this machine.
            TransportError: it cannot be opened, or has not opened in time.
        """
        self.main.start()
        super().start()

    def stop(self, timeout_s: float | None = STOP_S) -> bool:
        """Stop sending and close the outputs. What hangs is left behind; returns whether everything has ended."""
        timeout_s = STOP_S if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        ended = super().stop(timeout_s)
        for output in self.outputs:
            output.end()
        return all([output.join(deadline - time.monotonic()) for output in self.outputs]) and ended

    def stage_readings(self) -> dict[str, Any]:
        """The newest readings of the stages that run here."""
        return self._restyled_stages.readings() | self._tick_stages.readings()

    @property
    def given_up(self) -> tuple[str, ...]:
        """What the stages leave out of the picture because a tick is too short for it, in words."""
        return self._tick_stages.given_up

    def _run(self) -> None:
        raise_thread_priority()
        while not self.stopping.is_set():
            sleep_until(self.pacer.next_ns)
            try:
                self._tick()
            except Exception as error:  # one bad frame: the next tick sends again
                self.report_defect(error)
                if self.pacer.next_ns <= time.monotonic_ns():  # it failed before the clock advanced
                    self.pacer.tick(time.monotonic_ns())

    def _tick(self) -> None:
        supervisor = self._supervisor
        if self.model != self._made_for:
            self._made_for = self.model
            for stages in (self._restyled_stages, self._tick_stages):
                stages.remake(*self._made_for)
        running = supervisor.state is EngineState.RUNNING
        self.restyled.collect(running, supervisor.chunks, time.monotonic_ns())
        self.masks.collect(running, time.monotonic_ns())
        controls = self._controls()
        dry = controls.of(PanicControls).bypass or not self.restyled.any
        pick = self.pacer.tick(time.monotonic_ns(), "dry" if dry else "wet")
        if (wet := self.pacer.shown("wet")) is not None:
            self._history.forget(wet.captured_ns)  # even while dry is on air: no stage needs older frames
        frame = self._picture(controls, pick)
        new = bool(frame.captured_ns) and not controls.of(PanicControls).freeze
        for output in self.outputs:
            output.offer(frame, new)
        self._offer(frame)  # also when no output works: the page and the recording go on

    def _made(self, frame: Frame) -> Sequence[Frame]:
        """What the stages make of a restyled frame."""
        controls = self._controls()
        context = Context(time.monotonic_ns(), self._history, controls, wet=True, canvas=self._canvas(controls))
        return self._restyled_stages.run(frame, context)

    def _controls(self) -> Snapshot:
        """The values of this moment; in the comparison, those with which the stages leave the picture plain."""
        controls = self._store.modulated(time.monotonic_ns())
        return controls.replaced(self._plain) if controls.of(CompareControls).compare else controls

    def _canvas(self, controls: Snapshot) -> Size:
        """The size of the output. That of the newest input frame is the source's, where the source decides."""
        newest = self._history.newest
        source = self._made_for if newest is None else (newest.width, newest.height)
        return canvas_size(controls.of(CanvasControls).output_size, self._made_for, source)

    def _shown(self, frame: Frame, sent_ns: int) -> None:
        """Measure the latency of a frame that was sent: of its style if that is new, of its motion if that is new."""
        captured_ns, shows_ns = self._measured
        self._measured = frame.captured_ns, frame.shows_ns
        if frame.captured_ns != captured_ns:
            self.pacer.latency.add(frame.captured_ns, sent_ns)
        if frame.shows_ns != shows_ns:
            self.pacer.motion_latency.add(frame.shows_ns, sent_ns)

    def _forgotten(self) -> None:
        self._restyled_stages.reset()
        self._tick_stages.reset()

    def _picture(self, controls: Snapshot, pick: Pick) -> Frame:
        """The picture to send: black, the held picture, or what the stages make of the pacer's choice.

        The stages run while black is on air too, so that freeze then holds what would be on air without black.
        """
        panic = controls.of(PanicControls)
        if not panic.freeze and pick.frame is not None:
            wet, canvas = pick.track == "wet", self._canvas(controls)
            context = Context(time.monotonic_ns(), self._history, controls, wet=wet, canvas=canvas)
            made = self._tick_stages.run(pick.frame, context)
            self._tick_stages.keep_within(STAGES_SHARE * self.pacer.period_ms, context.now_ns)
            self._held = made[-1] if made else self._held
        if not panic.black:
            return self._held
        if _form(self._black) != _form(self._held):  # the size has changed, or whether outputs send an alpha
            self._black = _black_like(self._held)
        return self._black


def _form(frame: Frame) -> tuple[int, int, bool, bool]:
    return frame.width, frame.height, frame.alpha is not None, frame.premultiply


def _black_like(frame: Frame) -> Frame:
    """Opaque black in the size and format of a frame."""
    alpha = opaque(frame.width, frame.height) if frame.alpha is not None else None
    return Frame(np.zeros((frame.height, frame.width, 3), np.uint8), alpha=alpha, premultiply=frame.premultiply)
