"""The engine process's loop, the same for every session: frames from one ring -> chunks -> frames into the other."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bridge.ipc.metadata import cut, fitted
from bridge.process.engine_session import EngineSession
from bridge.process.faults import Fault, inject
from bridge.process.heartbeat import Heartbeat, Phase
from bridge.process.messages import FromEngine, Health, Start
from bridge.process.prompt_thread import PromptThread
from engine.chunker import Chunk
from engine.controls import Controls
from engine.frame import Frame
from engine.schedule import Cost, Goal, Load, Plan, Policy, expected, observe, plan

HEALTH_S = 0.1
"""Shortest time between two `Health` messages, in s, unless there is trouble."""

FPS_WINDOW = 30
"""Frames over which the input's rate is averaged."""

MAX_WAITING = 12
"""Frames that wait at most, as many as the ring holds, or two chunks if these are more; the oldest are dropped."""

IDLE_S, BUSY_S = 0.05, 0.001
"""Longest wait for a frame, in s: while the engine is idle, and while a chunk is computed (its end must be noticed)."""


@dataclass(frozen=True, slots=True)
class Running:
    """A chunk that was begun: its plan, and when it was begun, by `time.perf_counter`."""

    plan: Plan
    began: float


class Clock(Protocol):
    """The functions of the module `time` that the loop needs."""

    def perf_counter(self) -> float:
        """Time in s, for durations."""

    def monotonic(self) -> float:
        """Time in s."""

    def monotonic_ns(self) -> int:
        """Time in ns, by the clock of the frames."""


class FramesIn(Protocol):
    """The ring from which the loop takes the input frames; see `bridge.ipc.ring_ends.RingReader`."""

    @property
    def pending(self) -> int:
        """Frames that wait."""

    def get(self, timeout_s: float) -> Frame | None:
        """The oldest waiting frame; None if none comes within the timeout."""


class FramesOut(Protocol):
    """The ring into which the loop puts the restyled frames; see `bridge.ipc.ring_ends.RingWriter`."""

    @property
    def metadata_bytes(self) -> int:
        """Most bytes of a frame's metadata."""

    def put(self, frame: Frame) -> bool:
        """Queue a frame; drops the oldest when the ring is full. Returns whether it was queued."""


class Orders(Protocol):
    """The bridge process, as the loop sees it; see `bridge.process.parent.Parent`."""

    @property
    def controls(self) -> Controls:
        """The live controls in force."""

    @property
    def stopped(self) -> bool:
        """Whether to end."""

    def tell(self, message: FromEngine) -> None:
        """Send one message."""

    def take_fault(self) -> Fault | None:
        """The fault that was requested since the last call, if any."""


class Loop:
    """Gathers frames, plans, begins a chunk, collects its frames and returns them.

    Where the device computes asynchronously, the next chunk is begun shortly before the current one is finished: as
    late as possible, so that its frames and controls are fresh, and early enough that the device never waits.
    """

    def __init__(
        self,
        start: Start,
        session: EngineSession,
        inbox: FramesIn,
        outbox: FramesOut,
        parent: Orders,
        heartbeat: Heartbeat,
        clock: Clock = time,
    ) -> None:
        self._start = start
        self._session = session
        self._inbox = inbox
        self._outbox = outbox
        self._parent = parent
        self._heartbeat = heartbeat
        self._clock = clock
        self._prompts = PromptThread(session, parent.tell)
        self._waiting: deque[Frame] = deque()
        self._arrivals: deque[tuple[int, int]] = deque(maxlen=FPS_WINDOW)  # time of capture, number
        self._policy = Policy()
        self._cost = Cost()
        self._running: deque[Running] = deque()
        self._free = 0.0  # when the device finished the last collected chunk
        self._begin_s = 0.0
        self._steps = 0  # of the chunk that was collected last
        self._reported = 0.0
        self._told: Health | None = None

    def serve(self) -> None:
        """Process frames until told to stop. While a chunk is computed there is no heartbeat until it is finished."""
        while not self._parent.stopped:
            if not self._running:
                self._heartbeat.beat(Phase.WAITING)
            self._gather()
            if self._start.debug and (fault := self._parent.take_fault()) is not None:
                self._heartbeat.beat(Phase.WAITING)
                inject(fault, self._session)
            if not self._running or (len(self._running) == 1 and self._nearly_done()):
                self._begin()
            if self._running and self._session.arrived:
                self._collect()

    def _gather(self) -> None:
        """Take every frame that has arrived; wait briefly for one when there is nothing else to do."""
        need = self._session.frames_needed
        enough = len(self._waiting) >= need
        wait_s = BUSY_S if self._running else 0.0 if enough else IDLE_S
        frame = self._inbox.get(wait_s)
        while frame is not None:
            self._heartbeat.count(taken=1)
            self._arrivals.append((frame.captured_ns, frame.seq))
            self._waiting.append(frame)
            if len(self._waiting) > max(MAX_WAITING, 2 * need):
                self._waiting.popleft()
                self._heartbeat.count(skipped=1)
            frame = self._inbox.get(0.0) if self._inbox.pending else None

    def _nearly_done(self) -> bool:
        """Whether the running chunk will be finished by the time the next one has been begun.

        While it is not known how long a chunk takes, the next one waits: in a warm-up its frames would become old.
        """
        if self._session.arrived or not self._cost.seen:
            return self._session.arrived
        running = self._running[0]
        end = max(running.began, self._free) + expected(self._cost, running.plan)
        return end - self._clock.perf_counter() <= self._begin_s + 2 * BUSY_S

    def _begin(self) -> None:
        """Begin a chunk if enough frames have arrived."""
        session, controls = self._session, self._parent.controls
        need = session.frames_needed
        if len(self._waiting) < need:
            return
        decided = self._plan(controls, need)
        frames = evenly_spaced(self._waiting, need, decided.skip)
        if decided.skip:
            self._heartbeat.count(skipped=decided.skip)
        for _ in range(need + decided.skip):
            self._waiting.popleft()
        for frame in frames:
            session.feed(frame)
        self._heartbeat.beat(Phase.STEPPING)
        self._heartbeat.begun(self._clock.monotonic_ns() - frames[-1].captured_ns)
        began = self._clock.perf_counter()
        session.begin(
            controls if controls.steps == decided.steps else dataclasses.replace(controls, steps=decided.steps)
        )
        self._begin_s = self._clock.perf_counter() - began
        self._running.append(Running(decided, began))

    def _collect(self) -> None:
        """Return the frames of the chunk that is finished."""
        session, ended, now = self._session, self._running.popleft(), self._clock.perf_counter()
        took, self._free = now - max(ended.began, self._free), now
        self._heartbeat.beat(Phase.STEPPING)
        self._heartbeat.chunk(int(took * 1e9))
        before = session.health.chunks
        done = session.collect_chunks()
        # Not counted: the first chunk, which warms up and has all steps one after the other; the first call with other
        # steps and calls that return nothing, because the stream batch still has other rows; resets, which compute
        # nothing.
        same, self._steps = ended.plan.steps == self._steps, ended.plan.steps
        if session.health.chunks > max(before, 1) and done and same:
            self._cost = observe(self._cost, ended.plan, took)
        for chunk in done:
            self._return(chunk)
        self._prompts.want(session.health.missing_prompts)
        if self._clock.monotonic() - self._reported >= HEALTH_S or session.health.trouble:
            self._reported = self._clock.monotonic()
            self._report(health_message(session, ended.plan.reason))

    def _report(self, health: Health) -> None:
        """Tell the figures of a chunk, unless they are the same as before."""
        if health != self._told or health.trouble:
            self._told = health
            self._parent.tell(health)

    def _return(self, chunk: Chunk) -> None:
        """Send the frames of a chunk back; their metadata name the settings that the chunk was begun with."""
        limit, controls = self._outbox.metadata_bytes, chunk.controls
        made = frame_metadata(chunk.prompt, controls.strength, controls.steps, limit)
        for frame in chunk.frames:
            own = frame.metadata
            metadata = fitted({**made, **own, **made}, limit) if own else made
            self._outbox.put(dataclasses.replace(frame, metadata=metadata))
        self._heartbeat.count(finished=len(chunk.frames))

    def _plan(self, controls: Controls, need: int) -> Plan:
        spec, config = self._session.spec, self._start.config
        now = self._clock.monotonic_ns()
        load = Load(len(self._waiting), (now - self._waiting[0].captured_ns) / 1e9, self._input_fps())
        goal = Goal(
            steps=min(controls.steps, config.max_steps),
            latency_s=controls.slo_latency / 1e3,
            fps=self._start.fps,
            frames_per_latent=spec.frames_per_latent * spec.frames_per_block,
            batch=config.batch and spec.batches,
            hold=controls.slo_auto,
            extra_forwards=spec.extra_forwards,
        )
        decided, self._policy = plan(goal, load, self._cost, self._policy)
        spare = len(self._waiting) - need
        return decided if decided.skip <= spare else dataclasses.replace(decided, skip=spare)

    def _input_fps(self) -> float:
        """Frames that the source gives per second, those included that the ring dropped: their numbers tell."""
        if len(self._arrivals) < 2:
            return 0.0
        (began, first), (ended, last) = self._arrivals[0], self._arrivals[-1]
        seconds = (ended - began) / 1e9
        return max(0, last - first) / seconds if seconds > 0 else 0.0


@functools.lru_cache(maxsize=16)
def frame_metadata(prompt: str, strength: float, steps: int, limit: int) -> Mapping[str, str]:
    """The settings that a frame is made with, as metadata of at most `limit` bytes.

    A long prompt is cut to half of that, so that metadata with which the frame came has room too. That comes last: it
    is left out where it does not fit.
    """
    made = {"strength": f"{strength:g}", "steps": str(steps), "prompt": cut(prompt, limit // 2)}
    return fitted(made, limit)


def evenly_spaced(waiting: Iterable[Frame], need: int, skip: int) -> list[Frame]:
    """Choose `need` of the first `need + skip` frames: evenly spaced, the newest of them included.

    Skipping frames evenly, not only the oldest, keeps motion steady when the engine is slower than the input.
    """
    frames = list(waiting)[: need + skip]
    return [frames[(n + 1) * len(frames) // need - 1] for n in range(need)]


def health_message(session: EngineSession, reason: str) -> Health:
    """The message about the last chunk; `reason` is the schedule's."""
    health = session.health
    stages, trouble = health.stages, health.trouble
    return Health(health.noise, health.steps, health.prompt, health.vram, stages, reason, trouble, health.loras)
