"""What overload does to the latency, for all settings, on simulated machines in simulated time.

The engine process's loop, its schedule, the pacer and the stall detector are the real ones; source, rings, engine and
publish thread are simulated. `tidecast bench overload` prints a table of machines that are three times too slow.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.pacing.pacer import Pacer
from bridge.pipeline.restyled import Restyled
from bridge.process.faults import Fault
from bridge.process.heartbeat import Heartbeat
from bridge.process.identity_session import NoPrompt, PlainHealth, PlainSpec
from bridge.process.loop import Loop
from bridge.process.messages import FromEngine, Health, Start
from engine.chunker import Chunk
from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame

FPS, FRAMES = 30.0, 4
"""Frame rate of the source, and frames of a chunk."""

PERIOD_S = FRAMES / FPS
"""Time between two chunks of the source, in s."""

RING = 12
"""Frames that each ring holds."""

WARM_UP = 6.0
"""The first chunk takes this many times as long."""

ORIGIN_S = 1000.0
"""When a show begins, by its own clock."""

PIXELS = np.zeros((2, 2, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Machine:
    """An engine's speed: a call of n rows takes call_s + n * row_s seconds."""

    name: str
    call_s: float
    row_s: float
    asynchronous: bool = False

    def seconds(self, rows: int) -> float:
        """Seconds of a call with this many rows."""
        return self.call_s + rows * self.row_s


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one show.

    Attributes:
        steps, hold, target_ms: the controls `steps`, `slo_auto` and `slo_latency`.
        batch: whether the stream batch is used.
    """

    steps: int
    hold: bool
    target_ms: float
    batch: bool

    def controls(self) -> Controls:
        """The engine's controls."""
        return Controls(steps=self.steps, slo_auto=self.hold, slo_latency=self.target_ms)


@dataclass(frozen=True, slots=True)
class OnAir:
    """What was sent at one tick.

    Attributes:
        at_s: the time.
        age_s: time since the frame was captured.
        steps: denoising steps with which it was made; 0 for a frame of the input.
    """

    at_s: float
    age_s: float
    steps: int


def own_time_s(machine: Machine, steps: int, batch: bool) -> float:
    """Time from the capture of a chunk's first frame to its result when nothing waits: collecting, and all calls."""
    return PERIOD_S + (steps * machine.seconds(steps) if batch else steps * machine.seconds(1))


def bound_s(machine: Machine, steps: int, batch: bool) -> float:
    """Longest latency that overload may cause: the chunk's own time, and one more chunk before it."""
    one = machine.seconds(steps) if batch else steps * machine.seconds(1)
    return own_time_s(machine, steps, batch) + max(PERIOD_S, one)


class Show:
    """One show: source, rings, engine, publisher and clock in one object, which is also what the loop sees of them.

    Args:
        machine: the engine's speed.
        settings: the settings at the start; `controls` may be changed between two calls of `run`.

    Attributes:
        controls: the live controls.
        on_air: what was sent, by tick.
        said: what the schedule said, whenever it changed, with the time.
        stopped: whether the loop must return; see `Orders`.
    """

    metadata_bytes = 4096

    def __init__(self, machine: Machine, settings: Settings) -> None:
        self.controls = settings.controls()
        self.stopped = False
        self.on_air: list[OnAir] = []
        self.said: list[tuple[float, str]] = []
        self._now = self._until = ORIGIN_S
        self._arrivals = map(lambda n: ORIGIN_S + n / FPS, itertools.count())
        self._next_arrival = next(self._arrivals)
        self._numbers = itertools.count()
        self._inbox: deque[Frame] = deque(maxlen=RING)
        self._outbox: deque[tuple[int, Frame]] = deque(maxlen=RING)
        self._queued_ns = 0
        self._history = FrameHistory()
        self._pacer = Pacer()
        self._restyled = Restyled(self, self._history, self._pacer, 0.75, lambda frame: (frame,), lambda: None)
        self._heartbeat = Heartbeat()
        session = SimulatedSession(self, machine, settings.batch)
        start = Start(Config(batch=settings.batch), identity=False, debug=False, fps=0.0, controls=self.controls)
        self._loop = Loop(start, session, Inbox(self), self, self, self._heartbeat, self)

    def run(self, seconds: float) -> Show:
        """Go on for this long."""
        self._until += seconds
        self.stopped = False
        self._loop.serve()
        return self

    def advance(self, to_s: float) -> None:
        """Let time pass: frames arrive, and the publisher ticks."""
        while True:
            tick = max(self._pacer.next_ns / 1e9, self._now)
            when = min(tick, self._next_arrival)
            if when > to_s:
                break
            self._now = when
            if when == self._next_arrival:
                self._arrive()
            else:
                self._tick()
        self._now = max(self._now, to_s)
        self.stopped = self._now >= self._until

    def _arrive(self) -> None:
        now_ns = self.monotonic_ns()
        frame = Frame(PIXELS, pts_ns=now_ns, captured_ns=now_ns, seq=next(self._numbers))
        self._inbox.append(frame)
        self._history.add(frame)
        self._pacer.offer_dry(frame, now_ns, FPS)
        self._next_arrival = next(self._arrivals)

    def _tick(self) -> None:
        now_ns = self.monotonic_ns()
        self._restyled.collect(True, self._heartbeat.chunks, now_ns)
        pick = self._pacer.tick(now_ns, "wet" if self._restyled.any else "dry")
        if pick.frame is not None:
            steps = int(pick.frame.metadata.get("steps", 0))
            self.on_air.append(OnAir(self._now - ORIGIN_S, (now_ns - pick.frame.captured_ns) / 1e9, steps))

    # the clock

    def perf_counter(self) -> float:
        """Time in s."""
        return self._now

    monotonic = perf_counter

    def monotonic_ns(self) -> int:
        """Time in ns."""
        return round(self._now * 1e9)

    # the ring of the input, read by `Inbox`

    def take(self, timeout_s: float) -> Frame | None:
        """The oldest frame that waits for the engine; waits for one."""
        if not self._inbox:
            self.advance(min(self._next_arrival, self._now + timeout_s))
        return self._inbox.popleft() if self._inbox else None

    @property
    def waiting(self) -> int:
        """Frames that wait for the engine."""
        return len(self._inbox)

    # the ring of the results: the loop writes, `Restyled` reads

    def put(self, frame: Frame) -> bool:
        """See `FramesOut`."""
        self._outbox.append((self.monotonic_ns(), frame))
        return True

    @property
    def queued_ns(self) -> int:
        """See `Outbox`."""
        return self._queued_ns

    def get(self, timeout_s: float) -> Frame | None:
        """See `Outbox`."""
        if not self._outbox:
            return None
        self._queued_ns, frame = self._outbox.popleft()
        return frame

    def skip(self) -> int:
        """See `Outbox`."""
        count = len(self._outbox)
        self._outbox.clear()
        return count

    # the parent

    def tell(self, message: FromEngine) -> None:
        """Note what the schedule says."""
        if isinstance(message, Health) and (not self.said or self.said[-1][1] != message.reason):
            self.said.append((self._now - ORIGIN_S, message.reason))

    def take_fault(self) -> Fault | None:
        """See `Orders`."""
        return None


class Inbox:
    """The engine's end of the input ring of a show."""

    def __init__(self, show: Show) -> None:
        self._show = show

    @property
    def pending(self) -> int:
        """Frames that wait."""
        return self._show.waiting

    def get(self, timeout_s: float) -> Frame | None:
        """The oldest waiting frame."""
        return self._show.take(timeout_s)


class SimulatedSession:
    """An `EngineSession` that only takes time, as the stream batch of `engine.stream` does."""

    spec = PlainSpec("simulated", frames_per_latent=FRAMES)

    def __init__(self, show: Show, machine: Machine, batch: bool) -> None:
        self._show, self._machine, self._batch = show, machine, batch
        self._fed: list[Frame] = []
        self._begun: deque[tuple[float, list[Chunk]]] = deque()
        self._flights: list[tuple[Chunk, int]] = []  # newest first, with their numbers of steps
        self._free = 0.0
        self._first = True
        self.health = PlainHealth()

    @property
    def frames_needed(self) -> int:
        """See `EngineSession`."""
        return FRAMES - len(self._fed)

    @property
    def arrived(self) -> bool:
        """See `EngineSession`."""
        return not self._begun or self._begun[0][0] <= self._show.perf_counter()

    def feed(self, frame: Frame) -> None:
        """See `EngineSession`."""
        self._fed.append(frame)

    def begin(self, controls: Controls) -> None:
        """Start the next chunk; returns when it is finished unless the machine is asynchronous."""
        chunk, self._fed = Chunk(tuple(self._fed), controls), []
        done, seconds = [chunk], controls.steps * self._machine.seconds(1)
        if self._first:
            self._first, seconds = False, seconds * WARM_UP
        elif self._batch:
            older = [(c, min(n, max(controls.steps, row))) for row, (c, n) in enumerate(self._flights, start=2)]
            flights = [(chunk, controls.steps), *older]
            seconds = self._machine.seconds(len(flights))
            done = [c for row, (c, n) in reversed([*enumerate(flights, start=1)]) if n <= row]
            self._flights = [(c, n) for row, (c, n) in enumerate(flights, start=1) if n > row]
        self._free = max(self._show.perf_counter(), self._free) + seconds
        self._begun.append((self._free, done))
        if not self._machine.asynchronous:
            self._show.advance(self._free)

    def collect_chunks(self) -> list[Chunk]:
        """See `EngineSession`."""
        end, done = self._begun.popleft()
        self._show.advance(end)
        self.health = replace(self.health, chunks=self.health.chunks + 1)
        return done

    def encode_prompt(self, text: str) -> NoPrompt:
        """Do nothing."""
        return NoPrompt()


def too_slow(steps: int) -> tuple[Machine, ...]:
    """Machines that are three times too slow: already with one step, or with the wanted number of steps."""
    three = 3 * PERIOD_S
    one = Machine("1 step is 3 times too slow", 0.65 * three, 0.35 * three)
    return (one,) if steps == 1 else (one, Machine(f"{steps} steps are 3 times too slow", 0.0, three / steps))


def all_settings() -> Iterator[Settings]:
    """Every combination of the settings that decide about latency."""
    for steps, hold, target_ms, batch in itertools.product(
        (1, 2, 3, 4), (True, False), (50.0, 400.0, 2000.0), (True, False)
    ):
        yield Settings(steps, hold, target_ms, batch)


def late_s(show: Show, since_s: float) -> float:
    """Longest latency of a restyled picture on air after a time of the show; infinite if the input was on air."""
    ages = [tick.age_s if tick.steps else float("inf") for tick in show.on_air if tick.at_s >= since_s]
    return max(ages, default=float("inf"))


def rows(settings: Sequence[Settings]) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    for chosen in settings:
        for machine in too_slow(chosen.steps):
            show = Show(machine, chosen).run(25.0)
            steps = show.on_air[-1].steps
            yield (
                machine.name,
                str(chosen.steps),
                "on" if chosen.hold else "off",
                f"{chosen.target_ms:.0f}",
                "yes" if chosen.batch else "no",
                str(steps),
                f"{late_s(show, 15.0):.2f}",
                f"{bound_s(machine, steps, chosen.batch):.2f}",
                show.said[-1][1] if show.said else "",
            )


def overload() -> None:
    """Show what an engine that is three times too slow does to the latency, for all settings, in simulated time."""
    main()


def main() -> None:
    """Print the table as Markdown, for a target of 400 ms and 1, 2 or 4 steps."""
    print("| machine | Steps | Hold | target, ms | batch | steps in force | latency, s | at most, s | what is said |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows([chosen for chosen in all_settings() if chosen.target_ms == 400.0 and chosen.steps != 3]):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
