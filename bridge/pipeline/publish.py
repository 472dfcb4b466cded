"""The publish thread: at every tick of the output one picture leaves, whatever the engine and the input do.

Restyled frames pass their stages, go out at their own pace, and pass the stages of the tick (the mix with the input
frame of the same moment); the panic buttons act at the next tick; when the engine is late the last picture is
repeated, when it is gone or gives nothing for too long the input goes straight through.
Knows sinks only through `bridge.video.base`, and nothing of models.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from bridge.control.store import ControlStore
from bridge.control.values import Snapshot
from bridge.ipc.frame_ring import RingReader
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.pacing.output_clock import sleep_until
from bridge.pipeline.pacing.pacer import Pacer, Pick
from bridge.pipeline.panic import PanicControls
from bridge.pipeline.stages.base import Context, Place, StageRow
from bridge.pipeline.stages.chain import StageChain
from bridge.pipeline.stall_detector import StallDetector
from bridge.process.priority import raise_thread_priority
from bridge.process.supervisor import EngineState, Supervisor
from bridge.service import Service
from bridge.video.base import Options, Sink
from bridge.video.opening import open_sink
from engine.errors import TransportError
from engine.frame import Frame

WINDOW = 600
"""Sends whose times are kept."""


class Publisher(Service):
    """Sends the output.

    Args:
        uri, options: the sink.
        supervisor: where restyled frames come from, and whether there is an engine.
        history: the input frames, for the stages.
        stages: the table of stages, of which those of restyled frames and of the tick run here.
        store: live controls.
        fps: rate of the output in 1/s; 0 follows the source's.
        size: width and height of the output in pixels.
        stall_s: least time without a restyled frame, in s, before the input is shown (see `stall_detector`).
        offer: receives every sent frame (preview, recording); must be quick.
        tell: receives (topic, text) about what goes wrong.

    Attributes:
        pacer: the output clock; the capture thread gives it the input frames.
        stall_detector: says when the engine makes the audience wait too long; only this thread changes it.
        sent: frames sent since the start.
        sent_at: `time.monotonic_ns()` of the last sends; `styled_at` of the last frames that the engine gave.
        longest_gap_ms: longest time between two sends since it was last set to 0.
    """

    def __init__(
        self,
        uri: str,
        options: Options,
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
        self._uri = uri
        self._options = options
        self._opened = threading.Event()
        self._refused: TransportError | None = None
        self._supervisor = supervisor
        self._outbox: RingReader = supervisor.from_engine
        self._history = history
        self._store = store
        self._offer = offer
        self._report = tell
        width, height = size
        self._restyled_stages = StageChain(stages, Place.RESTYLED, width, height, tell)
        self._tick_stages = StageChain(stages, Place.TICK, width, height, tell)
        self._black = Frame(np.zeros((height, width, 3), np.uint8))
        self._held = self._black
        self._styled = False
        self._failing = ""
        self.pacer = Pacer(Fraction(fps).limit_denominator(1001) if fps else None)
        self.stall_detector = StallDetector(stall_s)
        self.sent = 0
        self.sent_at: deque[int] = deque(maxlen=WINDOW)
        self.styled_at: deque[int] = deque(maxlen=WINDOW)
        self.longest_gap_ms = 0.0

    def start(self) -> None:
        """Open the sink, on the thread that will send, and begin.

        Raises:
            NameTakenError: the output's name is in use on this machine.
            TransportError: if the sink cannot be opened.
        """
        super().start()
        self._opened.wait()
        if self._refused is not None:
            self.stop()
            raise self._refused

    def stage_readings(self) -> dict[str, Any]:
        """The newest readings of the stages that run here."""
        return self._restyled_stages.readings() | self._tick_stages.readings()

    def _run(self) -> None:
        raise_thread_priority()
        try:
            sink = open_sink(self._uri, self._options)
        except TransportError as error:
            if self._opened.is_set():
                raise  # begun again after a defect: the service tries until it opens
            self._refused = error
            return
        finally:
            self._opened.set()
        with sink:
            self._send_ticks(sink)

    def _send_ticks(self, sink: Sink) -> None:
        while not self.stopping.is_set():
            sleep_until(self.pacer.next_ns)
            try:
                self._tick(sink)
            except Exception as error:  # one bad frame: the sink stays open, the next tick sends again
                self.report_defect(error)
                if self.pacer.next_ns <= time.monotonic_ns():  # it failed before the clock went on
                    self.pacer.tick(time.monotonic_ns())

    def _tick(self, sink: Sink) -> None:
        self._collect()
        controls = self._store.snapshot
        straight = controls.of(PanicControls).bypass or not self._styled
        pick = self.pacer.tick(time.monotonic_ns(), "dry" if straight else "wet")
        if (wet := self.pacer.shown("wet")) is not None:
            self._history.forget(wet.captured_ns)  # whatever is on air: nobody will ask for older ones
        frame = self._picture(controls, pick)
        self._send(sink, frame)
        if pick.new and frame.captured_ns:
            self.pacer.latency.add(frame.captured_ns, self.sent_at[-1] if self.sent_at else 0)

    def _collect(self) -> None:
        """Hand what the engine has finished to the pacer; forget it when the engine is gone or makes us wait."""
        detector = self.stall_detector
        if self._supervisor.state is not EngineState.RUNNING:
            detector.restart()
            self._history.forget()
            if self._styled:
                self._outbox.skip()
                self._forget_wet()
            return
        while (frame := self._outbox.get(0.0)) is not None:
            self.styled_at.append(self._outbox.queued_ns)
            if detector.answered(frame.captured_ns):
                self._styled = True
                self._offer_wet(frame, self._outbox.queued_ns)
            else:
                self.pacer.wet.late += 1
        if self._history.newest is not None:
            detector.fed(self._history.newest.captured_ns)
        if detector.stalled and self._styled:
            self._forget_wet()

    def _offer_wet(self, frame: Frame, queued_ns: int) -> None:
        """Hand what the stages make of a restyled frame to the pacer; it was ready when it was queued, they later."""
        context = Context(time.monotonic_ns(), self._history, self._store.snapshot, wet=True)
        for made in self._restyled_stages.run(frame, context):
            self.pacer.wet.offer(made, queued_ns if made is frame else time.monotonic_ns())

    def _forget_wet(self) -> None:
        self._styled = False
        self.pacer.forget("wet")
        self._restyled_stages.reset()
        self._tick_stages.reset()

    def _picture(self, controls: Snapshot, pick: Pick) -> Frame:
        """What to show now: black, the held picture, or what the pacer chose."""
        panic = controls.of(PanicControls)
        if panic.black:
            return self._black
        if not panic.freeze and pick.frame is not None:
            context = Context(time.monotonic_ns(), self._history, controls, wet=pick.track == "wet")
            made = self._tick_stages.run(pick.frame, context)
            self._held = made[-1] if made else self._held
        return self._held

    def _send(self, sink: Sink, frame: Frame) -> None:
        try:
            sink.send(
                frame,
                {
                    **frame.metadata,  # a restyled frame says with which prompt, strength and steps it was made
                    "seq": str(frame.seq),
                    "captured_ns": str(frame.captured_ns),
                    "sent_ns": str(time.monotonic_ns()),
                },
            )
        except TransportError as error:
            if str(error) != self._failing:
                self._failing = str(error)
                self._report("output", str(error))
            return
        self._failing = ""
        now = time.monotonic_ns()
        if self.sent_at:
            self.longest_gap_ms = max(self.longest_gap_ms, (now - self.sent_at[-1]) / 1e6)
        self.sent_at.append(now)
        self.sent += 1
        self._offer(frame)
