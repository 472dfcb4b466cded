"""Starts the engine process, watches its heartbeat, kills it when it hangs, and restarts it with the current controls.

The supervisor owns the two frame rings and outlives every engine process. It works on a thread of its own, so that
nothing the engine does can block a thread that reads `state` or calls `feed`.
"""

from __future__ import annotations

import enum
import logging
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import assert_never

from bridge.config import EngineProcessConfig
from bridge.ipc.channel import Channel, MessageError
from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from bridge.process import worker
from bridge.process.faults import Fault
from bridge.process.heartbeat import Heartbeat, Phase
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

HANG_STEPS = 8.0
"""A chunk that takes this many times the longest one so far (and at least `hang_seconds`) counts as a hang."""

INBOX_DEPTH = 12
OUTBOX_DEPTH = 12
"""Frames that each ring holds: three chunks of four."""

EngineChannel = Channel[ToEngine, FromEngine]

_SPAWN = multiprocessing.get_context("spawn")


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
        tell: called with every `EngineEvent`, on the supervisor's thread; must be quick.

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
        self._service = Service("supervisor", self._run, lambda topic, text: tell(Complaint(topic, text)))
        self._stopping = self._service.stopping
        self._pid = 0
        self._heartbeat = Heartbeat()
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
            try:
                reason = self._run_process()
            except Exception as error:  # whatever the reason, an engine that cannot be started is tried again
                log.exception("the engine process failed to start")
                reason = f"The engine process could not be started: {type(error).__name__}: {error}."
            if self._stopping.is_set():
                break
            self.state = EngineState.FAILED
            self.restarts += 1
            if time.monotonic() - began > STABLE_S:
                backoff = self._process_config.backoff_seconds
            self._tell(Restarting(reason, backoff))
            self._stopping.wait(backoff)
            backoff = min(2 * backoff + 0.1, self._process_config.backoff_max_seconds)
        self.state = EngineState.STOPPED

    def _run_process(self) -> str:
        """Run one engine process from start to end; returns why it ended."""
        self._heartbeat = heartbeat = Heartbeat()
        sent = self._controls()
        start = Start(
            self._config, self._process_config.kind == "identity", self._process_config.debug, self._fps, sent
        )
        ours, theirs = _SPAWN.Pipe()
        inbox, outbox = self._inbox.reader(), self._outbox.writer()
        channel: EngineChannel = Channel(ours, FROM_ENGINE)
        process = _SPAWN.Process(
            target=worker.main, args=(start, inbox, outbox, theirs, heartbeat), name="tidecast-engine", daemon=True
        )
        try:
            process.start()
            self._pid = process.pid or 0
            theirs.close()
            inbox.close()
            outbox.close()
            return self._watch(process, channel, heartbeat, sent)
        finally:
            end_process(process, gently=self._stopping.is_set(), channel=channel)
            channel.close()
            with self._inbox.reader() as reader:
                waiting = reader.skip()
            self._purged += waiting
            self._lost += waiting
            self._lost += max(0, heartbeat.taken - heartbeat.skipped - heartbeat.finished)
            self._skipped += heartbeat.skipped
            self._heartbeat = Heartbeat()
            self._pid = 0

    def _watch(self, process: BaseProcess, channel: EngineChannel, heartbeat: Heartbeat, sent: Controls) -> str:
        longest_step = 0.0
        reason = ""
        while not self._stopping.is_set():
            ready = wait([channel.connection, process.sentinel], TICK_S)
            reason = self._handle_all(channel) or reason
            if process.sentinel in ready:
                process.join()
                return reason or f"The engine process ended by itself ({_exit_text(process.exitcode)})."
            current = self._controls()
            try:
                if current is not sent:
                    channel.send(ControlsChanged(current))
                    sent = current
                if self._fault is not None:
                    channel.send(InjectFault(self._fault))
                    self._fault = None
            except OSError:
                continue  # the process has ended: the sentinel reports it at the next turn
            if heartbeat.phase is Phase.STEPPING:
                longest_step = max(longest_step, heartbeat.step_s)
            limit = self._silence_limit(heartbeat, longest_step)
            if heartbeat.silent_s > limit:
                return f"The engine hung: no sign of life for {limit:.1f} s."
        return ""

    def _silence_limit(self, heartbeat: Heartbeat, longest_step: float) -> float:
        """Silence in s after which the engine counts as hung. The first chunk, a warm-up, counts as loading."""
        first_chunk = heartbeat.phase is Phase.STEPPING and not heartbeat.chunks
        if first_chunk or heartbeat.phase in (Phase.STARTING, Phase.LOADING):
            return self._process_config.load_seconds
        return max(self._process_config.hang_seconds, HANG_STEPS * longest_step)

    def _handle_all(self, channel: EngineChannel) -> str:
        """Handle every message that has arrived; returns the reason if the engine process announces its end."""
        reason = ""
        try:
            while channel.connection.poll():
                try:
                    reason = self._handle(channel.receive()) or reason
                except MessageError as error:
                    log.error("%s", error)
                    self._tell(Complaint("engine", str(error)))
        except (EOFError, OSError):
            pass  # the process has ended: the sentinel reports it
        return reason

    def _handle(self, message: FromEngine) -> str:
        """Handle one message of the engine process; returns the reason if it announces its end."""
        match message:
            case Ready():
                self.state = EngineState.RUNNING
                self._tell(message)
            case Loading() | Health() | Complaint():
                self._tell(message)
            case LogLine(level, logger, text):
                logging.getLogger(logger).log(level, "%s", text)
            case Failed(reason):
                return reason
            case _:
                assert_never(message)
        return ""


def end_process(process: BaseProcess, gently: bool, channel: EngineChannel) -> None:
    """End an engine process: if `gently`, ask it first and wait up to 2 s; then kill it. Returns when it is gone."""
    if process.pid is None:  # it could not be started
        return
    if gently and process.is_alive():
        try:
            channel.send(Stop())
            process.join(2.0)
        except OSError:
            pass
    if process.is_alive():
        process.kill()
    process.join()
    process.close()


def _exit_text(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
