"""Starts the engine process, watches its heartbeat, kills it when it hangs, and restarts it with the current controls.

The supervisor owns the two frame rings and outlives every engine process. It works on a thread of its own, so that
nothing the engine does can block a thread that reads `state` or calls `feed`. That thread itself never waits for the
engine either: a `BackgroundChannel` reads and writes the pipe, and a process that cannot be killed is left behind.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import time
from collections.abc import Callable
from typing import assert_never

import psutil

from bridge.config import EngineProcessConfig
from bridge.ipc.child_process import ChildProcess
from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from bridge.process import worker
from bridge.process.faults import Fault
from bridge.process.heartbeat import Heartbeat
from bridge.process.messages import (
    FROM_ENGINE,
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
    Start,
    Stop,
    ToEngine,
)
from bridge.process.watchdog import Watchdog
from bridge.service import Service
from engine.config import Config
from engine.controls import Controls
from engine.errors import EngineError
from engine.frame import Frame

log = logging.getLogger(__name__)

TICK_S = 0.02
"""Interval at which the heartbeat is checked and changed controls are sent."""

STABLE_S = 30.0
"""After an engine has run for this long, the delay before the next restart is the shortest again."""

STOP_S = 2.0
"""How long an engine process may take to end when it is asked to."""

INBOX_DEPTH = 12
OUTBOX_DEPTH = 12
"""Frames that each ring holds: three chunks of four."""


class EngineState(enum.StrEnum):
    """Whether there is an engine process that gives frames."""

    STOPPED = "stopped"
    LOADING = "loading"
    RUNNING = "running"
    FAILED = "failed"


class Supervisor:
    """Keeps one engine process alive.

    Args:
        config: the engine's configuration.
        process: how the process is watched and restarted.
        fps: output rate in 1/s that the schedule aims at; 0 for the input's rate.
        controls: returns the live controls in force.
        tell: called with every `EngineEvent`, on the supervisor's threads; must be quick.

    Attributes:
        to_engine: takes the input frames; see also `feed`.
        from_engine: gives the restyled frames.
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
    ) -> None:
        self._config = config
        self._process_config = process
        self._fps = fps
        self._controls = controls
        self._tell = tell
        self._inbox = FrameRing(config.width, config.height, INBOX_DEPTH)
        self._outbox = FrameRing(config.width, config.height, OUTBOX_DEPTH)
        self.to_engine: RingWriter = self._inbox.writer()
        self.from_engine: RingReader = self._outbox.reader()
        self._unread: RingReader = self._inbox.reader()  # drops what waits for an engine that has ended
        for end in (self.to_engine, self.from_engine, self._unread):
            end.pending  # noqa: B018 (maps the memory now: later there may be no descriptor left)
        self._service = Service("supervisor", self._run, lambda topic, text: tell(Complaint(topic, text)))
        self._stopping = self._service.stopping
        self._pid = 0
        self._no_heartbeat = self._heartbeat = Heartbeat()
        self._failure = ""
        self._lost = 0
        self._skipped = 0
        self._purged = 0
        self._fault: Fault | None = None
        self.state = EngineState.STOPPED
        self.restarts = 0

    @property
    def frames_lost(self) -> int:
        """Frames that engine processes took and did not return before they ended, or that were waiting for them."""
        return self._lost

    @property
    def frames_replaced(self) -> int:
        """Frames that the engine never received, or skipped, because there were newer ones."""
        return self.to_engine.dropped - self._purged + self._skipped + self._heartbeat.skipped

    @property
    def finished(self) -> int:
        """Frames that the current engine process has returned."""
        return self._heartbeat.finished

    @property
    def chunks(self) -> int:
        """Chunks that the current engine process has computed."""
        return self._heartbeat.chunks

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
        self.to_engine.close()
        self.from_engine.close()
        self._unread.close()
        self._inbox.close()
        self._outbox.close()

    def feed(self, frame: Frame) -> None:
        """Pass a frame to the engine if it is running; frames are not queued while it loads."""
        if self.state is EngineState.RUNNING:
            self.to_engine.put(frame)

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
            self.state = EngineState.FAILED
            self.restarts += 1
            if time.monotonic() - began > STABLE_S:
                backoff = self._process_config.backoff_seconds
            self._announce(Restarting(reason, backoff))
            self._stopping.wait(backoff)
            backoff = min(2 * backoff + 0.1, self._process_config.backoff_max_seconds)
        self.state = EngineState.STOPPED

    def _run_process(self) -> str:
        """Run one engine process from start to end; returns why it ended."""
        self._failure = ""
        try:
            sent = self._controls()
            engine = self._start_process(sent)
        except Exception as error:  # whatever the reason, an engine that cannot be started is tried again
            log.exception("the engine process failed to start")
            return f"The engine process could not be started: {type(error).__name__}: {error}."
        try:
            return self._watch(engine, sent)
        except Exception as error:  # an engine that cannot be watched is replaced
            log.exception("the engine process could not be watched")
            return f"The engine process could not be watched: {type(error).__name__}: {error}."
        finally:
            if not engine.end(gently=self._stopping.is_set()):
                self._complain("engine", f"The engine process {engine.pid} cannot be killed and is left behind.")
            self._count(engine.heartbeat)

    def _start_process(self, controls: Controls) -> EngineProcess:
        config = self._process_config
        start = Start(self._config, config.kind == "identity", config.debug, self._fps, controls)
        engine = EngineProcess(start, self._inbox, self._outbox, self._handle, self._complain)
        self._heartbeat, self._pid = engine.heartbeat, engine.pid
        return engine

    def _count(self, heartbeat: Heartbeat) -> None:
        """Add up the frames of an engine process that has ended. Those that wait for it are dropped."""
        waiting = self._unread.skip()
        self._purged += waiting
        self._lost += waiting
        self._lost += max(0, heartbeat.taken - heartbeat.skipped - heartbeat.finished)
        self._skipped += heartbeat.skipped
        self._heartbeat, self._pid = self._no_heartbeat, 0

    def _watch(self, engine: EngineProcess, sent: Controls) -> str:
        """Watch an engine process until it ends, hangs or is no longer wanted; returns the reason."""
        watchdog = Watchdog(engine.heartbeat, self._process_config)
        while not self._stopping.is_set():
            if engine.wait(TICK_S) or engine.channel.ended.is_set():
                engine.wait(STOP_S)
                engine.channel.ended.wait(STOP_S)  # until the last messages have been handled
                return self._failure or f"The engine process ended by itself ({engine.exit_text})."
            current = self._controls()
            if current is not sent:
                engine.channel.post(ControlsChanged(current))
                sent = current
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
                self.state = EngineState.RUNNING
                self._announce(message)
            case Loading() | Health() | Complaint():
                self._announce(message)
            case LogLine(level, logger, text):
                logging.getLogger(logger).log(level, "%s", text)
            case Failed(reason, captures):
                self._failure = reason
                if not captures:
                    self._failure += " It starts again without CUDA graphs, which is slower."
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


class EngineProcess(ChildProcess[ToEngine, FromEngine]):
    """One engine process, from start to end, and the channel to it.

    Args:
        start: what it is started with.
        inbox, outbox: the rings that it reads and writes.
        handle, report: see `BackgroundChannel`.

    Attributes:
        heartbeat: its counters.
        channel: messages to it and from it.
        pid: process id.

    Raises:
        OSError: if there are no descriptors, no memory or no processes left.
        RuntimeError: if there are no threads left.
    """

    def __init__(
        self,
        start: Start,
        inbox: FrameRing,
        outbox: FrameRing,
        handle: Callable[[FromEngine], None],
        report: Callable[[str, str], None],
    ) -> None:
        self.heartbeat = Heartbeat()
        with inbox.reader() as reader, outbox.writer() as writer:
            super().__init__(
                "engine",
                worker.main,
                lambda connection: (start, reader, writer, connection, self.heartbeat),
                FROM_ENGINE,
                handle,
                report,
            )

    @property
    def exit_text(self) -> str:
        """How the process ended, as part of a sentence."""
        code = self._process.exitcode
        if code is None:
            return "it has closed its pipe"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; returns whether it has."""
        return self._exited(timeout_s)

    def end(self, gently: bool) -> bool:
        """End the process: if `gently`, ask it first; then kill it. Takes a few seconds at most, whatever it does.

        Returns:
            Whether it is gone. A process that waits for a driver that hangs cannot be killed.
        """
        return self._end(Stop() if gently else None, STOP_S)

    def _kill(self) -> None:
        children = _children(self.pid)
        super()._kill()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


def _children(pid: int) -> list[psutil.Process]:
    """The processes that an engine process has started: one that hangs may wait for one of them, which does not end."""
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except (psutil.Error, OSError):
        return []
    return found
