"""The engine process: frames from the inbox -> Session -> frames into the outbox, until it is told to stop or dies.

The one module of the bridge that opens a model, and only inside `main`: importing it loads no torch. It knows the
session's face and the schedule, not the network; it knows no transport, no OSC and no clock but its own durations.
Whatever goes wrong here ends this process at worst; the supervisor reports it and starts another.

Messages to the owner are tuples: ("loading", text), ("ready", facts), ("health", readings), ("prompt", text),
("error", topic, reason), ("log", level, logger, text), ("failed", kind, reason). Messages from the owner:
("controls", Controls), ("fault", name), ("stop",).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.process.frame_ring import RingReader, RingWriter
from bridge.process.heartbeat import Phase, Pulse
from bridge.process.identity import IdentityEngine
from bridge.process.priority import fine_timers
from engine.config import Config
from engine.controls import Controls
from engine.errors import OutOfMemoryError, TidecastError
from engine.frame import Frame
from engine.schedule import Cost, Goal, Load, Plan, Policy, expected, observe, plan

if TYPE_CHECKING:
    from engine.session import Session

FAULTS = ("hang", "pause", "exit", "oom", "error")
"""Debugging commands of the fault drill: sleep for ever or for `PAUSE_S`, end at once, ask for more memory than there
is, raise."""

PAUSE_S = 4.0

HEALTH_S = 0.1
"""Least time between two messages about health, in s."""

FPS_WINDOW = 30
"""Frames over which the input's rate is averaged."""

IDLE_S, BUSY_S = 0.05, 0.001
"""Longest wait for a frame, in s: while nothing is computed, and while a chunk is, which is looked after between."""


@dataclass(frozen=True, slots=True)
class Start:
    """What an engine process is started with.

    Attributes:
        config: what the engine is told.
        identity: give frames back unchanged instead of opening a model.
        debug: obey the commands in `FAULTS`.
        fps: rate of the output in 1/s, which the schedule holds; 0 for the input's.
        controls: the live controls in force.
    """

    config: Config
    identity: bool
    debug: bool
    fps: float
    controls: Controls


class Reporter:
    """Sends messages to the owner from any thread; falls silent when the owner is gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send one message."""
        with self._sending:
            try:
                self._connection.send(message)
            except (BrokenPipeError, ConnectionError, OSError):
                os._exit(1)  # nobody is left to work for


class LogToOwner(logging.Handler):
    """Hands log records to the owner, whose terminal it is."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self._reporter.send("log", record.levelno, record.name, self.format(record))


class Mailbox:
    """Receives the owner's messages on a thread of its own and keeps the newest of each kind."""

    def __init__(self, connection: Connection, controls: Controls) -> None:
        self.controls = controls
        self.stopped = False
        self.fault = ""
        self._connection = connection
        threading.Thread(target=self._read, name="mailbox", daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the owner died: so must this process, whatever it is doing
            match message:
                case ("controls", controls):
                    self.controls = controls
                case ("fault", name):
                    self.fault = name
                case ("stop",):
                    self.stopped = True


class PromptThread:
    """Encodes prompts beside the picture, the newest first; `Session` remembers the results."""

    def __init__(self, session: Session, reporter: Reporter) -> None:
        self._session = session
        self._reporter = reporter
        self._wanted: tuple[str, ...] = ()
        self._failed: set[str] = set()
        self._wake = threading.Event()
        threading.Thread(target=self._run, name="prompts", daemon=True).start()

    def want(self, texts: Sequence[str]) -> None:
        """Say which prompts are missing now; earlier wishes are forgotten."""
        missing = tuple(text for text in texts if text not in self._failed)
        if missing != self._wanted:
            self._wanted = missing
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            for text in self._wanted:
                try:
                    found = self._session.encode_prompt(text)
                except TidecastError as error:
                    self._failed.add(text)
                    self._reporter.send("error", "/prompt", str(error))
                    continue
                if found.unknown:
                    words = ", ".join(found.unknown)
                    self._reporter.send("error", "/prompt", f"This model does not know: {words}. The rest is used.")
                self._reporter.send("prompt", text)


def main(start: Start, inbox: RingReader, outbox: RingWriter, connection: Connection, pulse: Pulse) -> None:
    """Body of the engine process (spawned). Returns when told to stop; every failure is reported, then ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the owner decides
    fine_timers()
    reporter = Reporter(connection)
    handler = LogToOwner(reporter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(message)s")
    mailbox = Mailbox(connection, start.controls)
    try:
        run(start, inbox, outbox, mailbox, reporter, pulse)
    except MemoryError as error:
        reporter.send("failed", "memory", f"The engine ran out of memory. {error}".strip())
    except OutOfMemoryError as error:
        reporter.send("failed", "memory", str(error))
    except TidecastError as error:
        reporter.send("failed", type(error).__name__, str(error))
    except EOFError:
        reporter.send("failed", "owner", "The program that fed the engine is gone.")
    except Exception as error:  # the seam of the process: whatever it is, say so before going down
        logging.getLogger(__name__).exception("the engine failed")
        reporter.send("failed", type(error).__name__, f"{type(error).__name__}: {error}")
    else:
        return
    os._exit(1)  # threads of foreign libraries must not keep a failed engine alive


def run(
    start: Start, inbox: RingReader, outbox: RingWriter, mailbox: Mailbox, reporter: Reporter, pulse: Pulse
) -> None:
    """Open the engine and serve frames until told to stop."""
    pulse.beat(Phase.LOADING)
    if start.identity:
        engine: Any = IdentityEngine(start.config)
        reporter.send("ready", {"model": "identity"})
        serve_identity(engine, inbox, outbox, mailbox, pulse, start)
        return

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin on the bridge's cores
    from engine.session import Session

    def progress(text: str) -> None:
        pulse.beat(Phase.LOADING)
        reporter.send("loading", text)

    progress(f"opening {start.config.model}")
    with Session.open(considerate(start.config), progress=progress, defer_prompts=True) as session:
        reporter.send("ready", {"model": session.spec.name})
        Server(start, session, inbox, outbox, mailbox, reporter, pulse).serve()


def considerate(config: Config) -> Config:
    """The configuration with a number of threads that leaves one core to the bridge, where none was chosen."""
    if config.threads:
        return config
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return config.model_copy(update={"threads": max(1, cores - 1)})


def serve_identity(
    engine: IdentityEngine, inbox: RingReader, outbox: RingWriter, mailbox: Mailbox, pulse: Pulse, start: Start
) -> None:
    """Give every frame back at once."""
    while not mailbox.stopped:
        pulse.beat(Phase.WAITING)
        frame = inbox.get(0.05)
        if start.debug and mailbox.fault:
            suffer(mailbox, pulse)
        if frame is None:
            continue
        pulse.count(taken=1)
        engine.feed(frame)
        for done in engine.step(mailbox.controls):
            outbox.put(done)
            pulse.count(finished=1)
        pulse.chunk(0)


@dataclass(frozen=True, slots=True)
class Running:
    """A chunk that was begun: under which plan, and when, in s."""

    plan: Plan
    began: float


class Server:
    """The loop of a model: gather frames, plan, begin a chunk, collect its frames and give them back.

    Where the device computes beside the host, the next chunk is begun just before the last one is finished: as late as
    possible, so that its frames and controls are fresh, and early enough that the device does not wait for it.
    """

    def __init__(
        self,
        start: Start,
        session: Session,
        inbox: RingReader,
        outbox: RingWriter,
        mailbox: Mailbox,
        reporter: Reporter,
        pulse: Pulse,
    ) -> None:
        self._start = start
        self._session = session
        self._inbox = inbox
        self._outbox = outbox
        self._mailbox = mailbox
        self._reporter = reporter
        self._pulse = pulse
        self._prompts = PromptThread(session, reporter)
        self._waiting: deque[Frame] = deque()
        self._arrivals: deque[int] = deque(maxlen=FPS_WINDOW)
        self._policy = Policy()
        self._cost = Cost()
        self._running: deque[Running] = deque()
        self._free = 0.0  # when the device ended what is no longer running
        self._begin_s = 0.0
        self._reported = 0.0

    def serve(self) -> None:
        """Serve frames until told to stop. While a chunk runs, its end is the only sign of life."""
        while not self._mailbox.stopped:
            if not self._running:
                self._pulse.beat(Phase.WAITING)
            self._gather()
            if self._start.debug and self._mailbox.fault:
                suffer(self._mailbox, self._pulse)
            if not self._running or (len(self._running) == 1 and self._nearly_done()):
                self._begin()
            if self._running and self._session.arrived:
                self._collect()

    def _gather(self) -> None:
        """Take every frame that is there; wait a moment when there is none."""
        frame = self._inbox.get(BUSY_S if self._running else IDLE_S)
        while frame is not None:
            self._pulse.count(taken=1)
            self._arrivals.append(frame.captured_ns)
            self._waiting.append(frame)
            frame = self._inbox.get(0.0)

    def _nearly_done(self) -> bool:
        """Whether the chunk that runs will be finished by the time that another could be begun."""
        running = self._running[0]
        end = max(running.began, self._free) + expected(self._cost, running.plan)
        return self._session.arrived or end - time.perf_counter() <= self._begin_s + 2 * BUSY_S

    def _begin(self) -> None:
        """Begin a chunk if its frames are there."""
        session, controls = self._session, self._mailbox.controls
        need = session.frames_needed
        if len(self._waiting) < need:
            return
        decided = self._plan(controls, need)
        frames = spread(self._waiting, need, decided.skip)
        self._pulse.count(skipped=decided.skip)
        for _ in range(need + decided.skip):
            self._waiting.popleft()
        for frame in frames:
            session.feed(frame)
        self._pulse.beat(Phase.STEPPING)
        began = time.perf_counter()
        session.begin(dataclasses.replace(controls, steps=decided.steps))
        self._begin_s = time.perf_counter() - began
        self._running.append(Running(decided, began))

    def _collect(self) -> None:
        """Give back the frames of the chunk that has ended."""
        session, ended, now = self._session, self._running.popleft(), time.perf_counter()
        took, self._free = now - max(ended.began, self._free), now
        self._pulse.beat(Phase.STEPPING)
        self._pulse.chunk(int(took * 1e9))
        before = session.health.chunks
        done = session.collect()
        if session.health.chunks > before:  # a reset alone only lets go what was in flight
            self._cost = observe(self._cost, ended.plan, took)
        for frame in done:
            self._outbox.put(frame)
        self._pulse.count(finished=len(done))
        self._prompts.want(session.health.missing_prompts)
        if time.monotonic() - self._reported >= HEALTH_S or session.health.trouble:
            self._reported = time.monotonic()
            self._reporter.send("health", dataclasses.asdict(session.health), ended.plan.reason)

    def _plan(self, controls: Controls, need: int) -> Plan:
        spec, config = self._session.spec, self._start.config
        now = time.monotonic_ns()
        load = Load(len(self._waiting), (now - self._waiting[0].captured_ns) / 1e9, self._input_fps())
        goal = Goal(
            steps=min(controls.steps, config.max_steps),
            latency_s=controls.slo_latency / 1e3,
            fps=self._start.fps,
            frames_per_latent=spec.frames_per_latent,
            batch=config.batch,
        )
        decided, self._policy = plan(goal, load, self._cost, self._policy)
        spare = len(self._waiting) - need
        if not controls.slo_auto:
            return Plan(latents=1, rows=goal.steps if goal.batch else 1, steps=goal.steps, skip=0)
        return dataclasses.replace(decided, skip=min(decided.skip, spare))

    def _input_fps(self) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        seconds = (self._arrivals[-1] - self._arrivals[0]) / 1e9
        return (len(self._arrivals) - 1) / seconds if seconds > 0 else 0.0


def spread(waiting: Iterable[Frame], need: int, skip: int) -> list[Frame]:
    """Choose `need` of the first `need + skip` frames, evenly spaced and with the newest of them.

    Leaving out frames between, not before, keeps motion steady when the engine is slower than the input.
    """
    frames = list(waiting)[: need + skip]
    return [frames[(n + 1) * len(frames) // need - 1] for n in range(need)]


def suffer(mailbox: Mailbox, pulse: Pulse) -> None:
    """Carry out a fault of the drill; only reached when debugging was switched on before the start."""
    fault, mailbox.fault = mailbox.fault, ""
    match fault:
        case "hang":
            pulse.beat(Phase.WAITING)
            time.sleep(1e6)
        case "pause":
            time.sleep(PAUSE_S)
        case "exit":
            os._exit(3)
        case "oom":
            np.ones(1 << 50)  # 8 PiB: the allocation itself fails
        case "error":
            raise RuntimeError("drill")
