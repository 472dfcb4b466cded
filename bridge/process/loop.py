"""The engine process's loop, the same for every session: frames from one ring -> chunks -> frames into the other."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.ipc.metadata import cut, fitted
from bridge.ipc.ring_ends import RingReader, RingWriter
from bridge.process.engine_session import EngineSession
from bridge.process.faults import inject
from bridge.process.heartbeat import Heartbeat, Phase
from bridge.process.messages import Health, Start
from bridge.process.parent import Parent
from bridge.process.prompt_thread import PromptThread
from engine.chunker import Chunk
from engine.controls import Controls
from engine.frame import Frame
from engine.schedule import Cost, Goal, Load, Plan, Policy, expected, observe, plan

HEALTH_S = 0.1
"""Shortest time between two `Health` messages, in s, unless there is trouble."""

FPS_WINDOW = 30
"""Frames over which the input's rate is averaged."""

IDLE_S, BUSY_S = 0.05, 0.001
"""Longest wait for a frame, in s: while the engine is idle, and while a chunk is computed (its end must be noticed)."""


@dataclass(frozen=True, slots=True)
class Running:
    """A chunk that was begun: its plan, and when it was begun, by `time.perf_counter`."""

    plan: Plan
    began: float


class Loop:
    """Gathers frames, plans, begins a chunk, collects its frames and returns them.

    Where the device computes asynchronously, the next chunk is begun shortly before the current one is finished: as
    late as possible, so that its frames and controls are fresh, and early enough that the device never waits.
    """

    def __init__(
        self,
        start: Start,
        session: EngineSession,
        inbox: RingReader,
        outbox: RingWriter,
        parent: Parent,
        heartbeat: Heartbeat,
    ) -> None:
        self._start = start
        self._session = session
        self._inbox = inbox
        self._outbox = outbox
        self._parent = parent
        self._heartbeat = heartbeat
        self._prompts = PromptThread(session, parent.tell)
        self._waiting: deque[Frame] = deque()
        self._arrivals: deque[int] = deque(maxlen=FPS_WINDOW)
        self._policy = Policy()
        self._cost = Cost()
        self._running: deque[Running] = deque()
        self._free = 0.0  # when the device finished the last collected chunk
        self._begin_s = 0.0
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
        enough = len(self._waiting) >= self._session.frames_needed
        wait_s = BUSY_S if self._running else 0.0 if enough else IDLE_S
        frame = self._inbox.get(wait_s)
        while frame is not None:
            self._heartbeat.count(taken=1)
            self._arrivals.append(frame.captured_ns)
            self._waiting.append(frame)
            frame = self._inbox.get(0.0) if self._inbox.pending else None

    def _nearly_done(self) -> bool:
        """Whether the running chunk will be finished by the time the next one has been begun."""
        running = self._running[0]
        end = max(running.began, self._free) + expected(self._cost, running.plan)
        return self._session.arrived or end - time.perf_counter() <= self._begin_s + 2 * BUSY_S

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
        began = time.perf_counter()
        session.begin(
            controls if controls.steps == decided.steps else dataclasses.replace(controls, steps=decided.steps)
        )
        self._begin_s = time.perf_counter() - began
        self._running.append(Running(decided, began))

    def _collect(self) -> None:
        """Return the frames of the chunk that is finished."""
        session, ended, now = self._session, self._running.popleft(), time.perf_counter()
        took, self._free = now - max(ended.began, self._free), now
        self._heartbeat.beat(Phase.STEPPING)
        self._heartbeat.chunk(int(took * 1e9))
        before = session.health.chunks
        done = session.collect_chunks()
        if session.health.chunks > before:  # after a reset nothing was computed: there is no cost to learn
            self._cost = observe(self._cost, ended.plan, took)
        for chunk in done:
            self._return(chunk)
        self._prompts.want(session.health.missing_prompts)
        if time.monotonic() - self._reported >= HEALTH_S or session.health.trouble:
            self._reported = time.monotonic()
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
        if not controls.slo_auto:
            return Plan(rows=goal.steps if goal.batch else 1, steps=goal.steps, skip=0)
        spare = len(self._waiting) - need
        return decided if decided.skip <= spare else dataclasses.replace(decided, skip=spare)

    def _input_fps(self) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        seconds = (self._arrivals[-1] - self._arrivals[0]) / 1e9
        return (len(self._arrivals) - 1) / seconds if seconds > 0 else 0.0


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
    return Health(health.noise, health.steps, health.prompt, health.vram, health.stages, reason, health.trouble)
