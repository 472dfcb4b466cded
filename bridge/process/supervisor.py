"""Starts the engine process, watches its heartbeat, kills it when it hangs, and restarts it with the current controls.

The supervisor owns the two frame rings and outlives every engine process. Model and size may change (`want`): the
engine process is ended, the rings are exchanged if the size is another one, and the next engine process is started. If
it fails before it has returned anything, the model and the size before come back.

The supervisor works on a thread of its own, so that nothing the engine does can block a thread that reads `state` or
calls `feed`. That thread itself never waits for the engine either: a `BackgroundChannel` reads and writes the pipe, and
a process that cannot be killed is left behind.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable
from typing import assert_never

from bridge.config import EngineProcessConfig
from bridge.process.engine.choice import IDENTITY, EngineChoice, Size, SizeTrial, configured
from bridge.process.engine.engine_process import STOP_S, EngineProcess
from bridge.process.engine.mask_rings import MaskRings
from bridge.process.engine.rings import EngineRings
from bridge.process.faults import Fault
from bridge.process.heartbeat import Heartbeat
from bridge.process.messages import (
    ChangeFailed,
    Complaint,
    ControlsChanged,
    EngineEvent,
    Failed,
    FromEngine,
    Health,
    InjectFault,
    Loading,
    LogLine,
    Ready,
    Restarting,
    SizeFound,
    Start,
)
from bridge.process.watchdog import Watchdog
from bridge.service import Service
from engine.config import Config
from engine.controls import Controls
from engine.errors import EngineError
from engine.frame import Frame

log = logging.getLogger(__name__)

TICK_S = 0.02
"""Interval at which the heartbeat is checked, and controls are sent whose change was not told (`controls_changed`)."""

POST_S = 0.004
"""Shortest time between two sendings of controls whose changes are told: a flood of them costs little."""

STABLE_S = 30.0
"""After an engine has run for this long, the delay before the next restart is the shortest again."""


class EngineState(enum.StrEnum):
    """Whether there is an engine process that gives frames."""

    STOPPED = "stopped"
    LOADING = "loading"
    RUNNING = "running"
    FAILED = "failed"


class Supervisor:
    """Keeps one engine process alive.

    Args:
        config: the engine's configuration, with the model and the size of the start.
        process: how the process is watched and restarted.
        fps: output rate in 1/s that the schedule aims at; 0 for the input's rate.
        controls: returns the live controls in force.
        tell: called with every `EngineEvent`, on the supervisor's threads; must be quick.
        trial: returns what is measured where the size is left open; None if it cannot be left open.

    Attributes:
        from_engine: gives the restyled frames.
        masks: takes input frames and gives their person masks.
        size: size of the pictures of the engine that is running, or that ran last.
        state: whether there is an engine process that gives frames.
        restarts: how often an engine process ended by itself, hung or could not be started.
    """

    def __init__(
        self,
        config: Config,
        process: EngineProcessConfig,
        fps: float,
        controls: Callable[[], Controls],
        tell: Callable[[EngineEvent], None],
        trial: Callable[[], SizeTrial | None] = lambda: None,
    ) -> None:
        self._start_config = self._config = config.model_copy(update={"size": ""})
        self._process_config = process
        self._fps = fps
        self._controls = controls
        self._tell = tell
        self._trial = trial
        self.size: Size = (config.width, config.height)
        self._rings = self.from_engine = EngineRings(*self.size)
        self.masks = MaskRings()
        model = IDENTITY if process.kind == "identity" else config.model
        self._wanted = self._choice = self._proven = EngineChoice(model, self.size)
        self._wishing = threading.Lock()  # held to compare and change `_wanted`
        self._ready = False  # whether the engine process that runs now has been
        self._measuring = self._found = False  # whether that process measures sizes, and has chosen one
        self._measured: dict[EngineChoice, Size] = {}  # the size of each choice that leaves it open
        self._retry = False  # whether it failed in a way that the next one with the same choice avoids
        self._service = Service("supervisor", self._run, lambda topic, text: tell(Complaint(topic, text)))
        self._stopping = self._service.stopping
        self._pid = 0
        self._no_heartbeat = self._heartbeat = Heartbeat()
        self._failure = ""
        self._lost = 0
        self._skipped = 0
        self._purged = 0
        self._fault: Fault | None = None
        self._posting = threading.Lock()  # held to send controls, so that the newest are sent last
        self._engine: EngineProcess | None = None
        self._sent: Controls | None = None
        self._posted_s = 0.0
        self.state = EngineState.STOPPED
        self.restarts = 0

    @property
    def frames_lost(self) -> int:
        """Frames that engine processes took and did not return before they ended, or that were waiting for them."""
        return self._lost

    @property
    def frames_replaced(self) -> int:
        """Frames that the engine never received, or skipped, because there were newer ones."""
        return self._rings.dropped - self._purged + self._skipped + self._heartbeat.skipped

    @property
    def finished(self) -> int:
        """Frames that the current engine process has returned."""
        return self._heartbeat.finished

    @property
    def chunks(self) -> int:
        """Chunks that the current engine process has computed."""
        return self._heartbeat.chunks

    @property
    def waited_ms(self) -> float:
        """How long the newest frame of a chunk waits from its capture until the chunk is begun, in ms."""
        return self._heartbeat.waited_s * 1e3

    @property
    def process_id(self) -> int:
        """Process id of the engine; 0 when there is none."""
        return self._pid

    def start(self) -> None:
        """Start the engine process and the thread that watches it."""
        self._service.start()

    def stop(self) -> None:
        """End the engine process and release the shared memory; idempotent."""
        self._service.stop()
        self.state = EngineState.STOPPED
        self._rings.close()
        self.masks.close()

    def want(self, choice: EngineChoice) -> None:
        """Have this model and size from now on. Returns at once, from any thread; the newest wish counts."""
        with self._wishing:
            if choice != self._wanted:
                self._measured.pop(choice, None)
            self._wanted = choice

    def controls_changed(self) -> None:
        """Send the engine the controls in force; never waits, from any thread. Without this call it gets them some time
        within `TICK_S`."""
        if time.monotonic() - self._posted_s >= POST_S:
            self._post_controls()

    def _post_controls(self) -> None:
        with self._posting:
            current, engine = self._controls(), self._engine
            if engine is not None and current is not self._sent:
                engine.channel.post(ControlsChanged(current))
                self._sent, self._posted_s = current, time.monotonic()

    def feed(self, frame: Frame) -> None:
        """Pass a frame to the engine if it is running; frames are not queued while it loads."""
        if self.state is EngineState.RUNNING:
            self._rings.put(frame)

    def inject(self, fault: str) -> None:
        """Cause the `Fault` of this name in the engine process; for the fault drill.

        Raises:
            EngineError: for an unknown fault, or when the engine was not started for debugging.
        """
        if fault not in tuple(Fault):
            raise EngineError(f"There is no fault {fault!r}.", f"Known: {', '.join(Fault)}.")
        if not self._process_config.debug:
            raise EngineError("The engine was not started for debugging.", "Set process.debug = true.")
        self._fault = Fault(fault)

    def _run(self) -> None:
        backoff = self._process_config.backoff_seconds
        while not self._stopping.is_set():
            self.state = EngineState.LOADING
            began = time.monotonic()
            reason = self._run_process()
            if self._stopping.is_set():
                break
            found, self._found = self._found, False
            if found or self._wanted != self._choice or self._goes_back(reason):
                backoff = self._process_config.backoff_seconds
                continue
            self.state = EngineState.FAILED
            self.restarts += 1
            if time.monotonic() - began > STABLE_S:
                backoff = self._process_config.backoff_seconds
            self._announce(Restarting(reason, backoff))
            self._pause(backoff)
            backoff = min(2 * backoff + 0.1, self._process_config.backoff_max_seconds)
        self.state = EngineState.STOPPED

    def _pause(self, seconds: float) -> None:
        """Wait for so long, or until another model or size is wanted."""
        end_s = time.monotonic() + seconds
        while self._wanted == self._choice and (left_s := end_s - time.monotonic()) > 0.0:
            if self._stopping.wait(min(left_s, TICK_S)):
                return

    def _goes_back(self, reason: str) -> bool:
        """Whether what ran before is started again, because what was chosen has failed before it returned anything."""
        with self._wishing:
            failed, back = self._choice, self._proven
            if failed == back or self._wanted != failed or self._retry:
                return False
            self._wanted = back
        self._announce(ChangeFailed(failed, back, reason))
        return True

    def _run_process(self) -> str:
        """Run one engine process from start to end; returns why it ended."""
        self._failure = ""
        try:
            self._prepare()
            self._sent = self._controls()
            engine = self._start_process(self._sent)
        except Exception as error:  # whatever the reason, an engine that cannot be started is tried again
            log.exception("the engine process failed to start")
            return f"The engine process could not be started: {type(error).__name__}: {error}."
        try:
            self._engine = engine
            return self._watch(engine)
        except Exception as error:  # an engine that cannot be watched is replaced
            log.exception("the engine process could not be watched")
            return f"The engine process could not be watched: {type(error).__name__}: {error}."
        finally:
            self._engine = None
            # One that loads does not read what it is told; one that runs finishes its chunk.
            asked = self._stopping.is_set() or (self._wanted != self._choice and self._ready)
            if not engine.end(gently=asked):
                self._complain("engine", f"The engine process {engine.pid} cannot be killed and is left behind.")
            self._count(engine.heartbeat)

    def _prepare(self) -> None:
        """Take up what is wanted now: the configuration, and rings of its size.

        Raises:
            SharedMemoryError, OSError: there is not enough memory, or there are too many open files.
        """
        wanted = self._wanted
        self._ready = self._retry = False
        size = wanted.size or self._measured.get(wanted)
        self._measuring, self._found = size is None, False
        size = size or self._rings.size
        if wanted != self._choice:
            log.info("the engine changes to %s", wanted)
            self._choice = wanted
            self._config = configured(self._start_config, wanted, size)
        self._config = self._config.model_copy(update={"width": size[0], "height": size[1]})
        if size != self._rings.size:
            self._rings.exchange(*size)
        if wanted != self._proven:
            self._announce(Loading(f"Loading {wanted}"))

    def _start_process(self, controls: Controls) -> EngineProcess:
        config, trial = self._process_config, self._trial() if self._measuring else None
        if self._measuring and trial is None:
            raise EngineError("There are no sizes to measure.", "Choose a size.")
        start = Start(self._config, self._choice.model == IDENTITY, config.debug, self._fps, controls, trial)
        engine = EngineProcess(start, self._rings.pair, self.masks, self._handle, self._complain)
        self._heartbeat, self._pid = engine.heartbeat, engine.pid
        return engine

    def _count(self, heartbeat: Heartbeat) -> None:
        """Add up the frames of an engine process that has ended. Those that wait for it are dropped."""
        waiting = self._rings.skip_unread()
        self._purged += waiting
        self._lost += waiting
        self._lost += max(0, heartbeat.taken - heartbeat.skipped - heartbeat.finished)
        self._skipped += heartbeat.skipped
        self._heartbeat, self._pid = self._no_heartbeat, 0

    def _watch(self, engine: EngineProcess) -> str:
        """Watch an engine process until it ends, hangs or is no longer wanted; returns the reason."""
        watchdog = Watchdog(engine.heartbeat, self._process_config)
        while not self._stopping.is_set():
            if engine.wait(TICK_S) or engine.channel.ended.is_set():
                engine.wait(STOP_S)
                engine.channel.ended.wait(STOP_S)  # until the last messages have been handled
                return self._failure or f"The engine process ended by itself ({engine.exit_text})."
            if self._wanted != self._choice:
                self.state = EngineState.LOADING
                return f"{self._wanted} was chosen instead."
            if self._ready and engine.heartbeat.chunks:
                self._proven = self._choice
            self._post_controls()
            fault, self._fault = self._fault, None
            if fault is not None:
                engine.channel.post(InjectFault(fault))
            if allowed_s := watchdog.check():
                return f"The engine hung: no sign of life for {allowed_s:.1f} s."
        return ""

    def _handle(self, message: FromEngine) -> None:
        """Handle one message of the engine process, on the thread that receives them."""
        match message:
            case Ready():
                self.size, self._ready = self._rings.size, True
                self.state = EngineState.RUNNING
                self._announce(message)
            case Loading(text):
                self._announce(Loading(f"Loading {self._choice}: {text}"))
            case SizeFound(size):
                self._measured[self._choice], self._found = size, True
                self._announce(message)
            case Health() | Complaint():
                self._announce(message)
            case LogLine(level, logger, text):
                logging.getLogger(logger).log(level, "%s", text)
            case Failed(reason, captures):
                self._failure = reason
                if not captures:
                    self._failure += " It starts again without CUDA graphs, which is slower."
                    self._retry = True
                    self._config = self._config.model_copy(update={"compile": "off"})
            case _:
                assert_never(message)

    def _complain(self, topic: str, text: str) -> None:
        self._announce(Complaint(topic, text))

    def _announce(self, event: EngineEvent) -> None:
        try:
            self._tell(event)
        except Exception as error:  # who is told must not end the watch
            self._service.report_defect(error)
