"""Simulates shows without a GPU: runs the engine's scheduling code on simulated time. Deterministic.

`simulate` plays frames with any arrival pattern through a machine of any speed and counts missed deadlines, with or
without the policy of `engine.schedule`. `python -m engine.planning.simulate` prints a table of such shows.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from engine.schedule import Cost, Goal, Load, Policy, observe, plan

INPUT_FRAMES = 12
"""Frames that the simulated input ring holds, as many as the bridge's; when there are more, the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Simulated cost of a call: slowdown(t) * (call_s + codec_s + rows * row_s) seconds, with a variation of 3 %.

    A slowdown of 1 is the nominal speed, 3 is a machine throttled to a third.
    """

    call_s: float
    codec_s: float
    row_s: float
    slowdown: Callable[[float], float] = lambda t: 1.0

    def seconds(self, t: float, rows: int) -> float:
        """Seconds of one call that begins at time t."""
        variation = 1.0 + 0.03 * math.sin(97.0 * t)
        return self.slowdown(t) * variation * (self.call_s + self.codec_s + rows * self.row_s)


@dataclass(frozen=True, slots=True)
class Show:
    """One scenario.

    Attributes:
        name: shown in the table.
        arrivals: times at which frames arrive, in seconds, increasing.
        machine: the simulated machine.
        goal: wanted steps and latency.
        seconds: length of the show.
    """

    name: str
    arrivals: Callable[[], Iterator[float]]
    machine: Machine
    goal: Goal
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a simulated show.

    Attributes:
        frames: frames that arrived.
        missed: share of them that were dropped or finished later than the wanted latency.
        p50_s, p95_s: median and 95th percentile of the latency of finished frames.
        steps: mean number of denoising steps.
        changes: how often the number of steps changed.
        gap_s: longest time without a finished frame.
    """

    frames: int
    missed: float
    p50_s: float
    p95_s: float
    steps: float
    changes: int
    gap_s: float


def steady(fps: float, seconds: float) -> Callable[[], Iterator[float]]:
    """Frames at a constant rate."""
    return lambda: (i / fps for i in range(int(seconds * fps)))


def jittered(fps: float, seconds: float, share: float = 0.6) -> Callable[[], Iterator[float]]:
    """Frames at a constant rate, each delayed by up to `share` of a period, in a fixed pattern."""

    def arrivals() -> Iterator[float]:
        last = 0.0
        for i in range(int(seconds * fps)):
            last = max(last, (i + share * (0.5 + 0.5 * math.sin(i * 12.9898))) / fps)
            yield last

    return arrivals


def irregular(seconds: float) -> Callable[[], Iterator[float]]:
    """A source whose rate varies between 12 and 48 frames per second and that sometimes pauses for a second."""

    def arrivals() -> Iterator[float]:
        t = 0.0
        while t < seconds:
            yield t
            t += 1.0 / (30.0 + 18.0 * math.sin(t / 3.0))
            if math.sin(t / 7.0) > 0.9995:
                t += 1.0

    return arrivals


def simulate(show: Show, *, with_policy: bool) -> Outcome:
    """Simulate a show. Without the policy, the wanted steps always run and only the input ring drops frames."""
    chunk, goal = show.goal.frames_per_latent, show.goal
    events = list(show.arrivals())
    cost, policy = Cost(), Policy()
    waiting: list[float] = []
    in_flight: list[tuple[float, float]] = []
    latencies: list[float] = []
    finished: list[float] = []
    steps_seen: list[int] = []
    now, index = 0.0, 0
    rows_in_flight: list[list[float]] = []
    while index < len(events) or len(waiting) >= chunk:
        while index < len(events) and events[index] <= now:
            waiting.append(events[index])
            index += 1
        del waiting[: max(0, len(waiting) - INPUT_FRAMES)]
        if len(waiting) < chunk:
            if index >= len(events):
                break
            now = max(now, events[index])
            continue
        recent = events[max(0, index - 31) : index]
        fps = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 30.0
        if with_policy:
            chosen, policy = plan(goal, Load(len(waiting), now - waiting[0], fps), cost, policy)
        else:
            chosen, _ = plan(goal, Load(len(waiting), 0.0, fps), Cost(), Policy())
        del waiting[: chosen.skip]
        taken = waiting[:chunk]
        del waiting[:chunk]
        busy = chosen.forwards * show.machine.seconds(now, chosen.rows)
        cost = observe(cost, chosen, busy)
        now += busy
        steps_seen.append(chosen.steps)
        rows_in_flight.append(taken)
        depth = chosen.steps if chosen.rows == chosen.steps else 1
        while len(rows_in_flight) >= depth:
            for captured in rows_in_flight.pop(0):
                heapq.heappush(in_flight, (now, captured))
        while in_flight:
            done, captured = heapq.heappop(in_flight)
            finished.append(done)
            latencies.append(done - captured)
    return _outcome(len(events), latencies, finished, steps_seen, goal.latency_s)


def _outcome(frames: int, latencies: list[float], finished: list[float], steps: list[int], latency_s: float) -> Outcome:
    ordered = sorted(latencies) or [math.inf]
    kept = sum(value <= latency_s for value in latencies)
    return Outcome(
        frames=frames,
        missed=1.0 - kept / frames,
        p50_s=ordered[len(ordered) // 2],
        p95_s=ordered[int(len(ordered) * 0.95)],
        steps=sum(steps) / max(1, len(steps)),
        changes=sum(a != b for a, b in pairwise(steps)),
        gap_s=max((b - a for a, b in pairwise(finished)), default=math.inf),
    )


def shows() -> tuple[Show, ...]:
    """The scenarios of the table."""
    goal = Goal(steps=2, latency_s=0.4)
    four = Goal(steps=4, latency_s=0.5)
    easy = Machine(0.015, 0.03, 0.02)
    minute = 60.0

    def throttle(t: float) -> float:
        return 3.0 if 20.0 <= t < 40.0 else 1.0

    def changing_load(t: float) -> float:
        return (1.0, 1.5, 1.0, 2.0, 1.0, 1.2)[int(t // 10) % 6]

    return (
        Show("15 fps, the second step lags too long", steady(15, minute), easy, goal),
        Show("30 fps, room to spare", steady(30, minute), easy, goal),
        Show("30 fps, 4 steps too many", steady(30, minute), Machine(0.015, 0.045, 0.03), four),
        Show("60 fps, 2 steps too many", steady(60, minute), easy, goal),
        Show("60 fps, 1 step too many", steady(60, minute), Machine(0.02, 0.045, 0.02), goal),
        Show("30 fps, load steps", steady(30, minute), Machine(0.015, 0.03, 0.025, changing_load), goal),
        Show("30 fps, GPU throttled to a third", steady(30, minute), Machine(0.01, 0.02, 0.03, throttle), goal),
        Show("30 fps with jitter", jittered(30, minute), Machine(0.015, 0.03, 0.025), goal),
        Show("irregular, 12 to 48 fps", irregular(minute), Machine(0.015, 0.03, 0.03), goal),
    )


def table() -> list[tuple[str, Outcome, Outcome]]:
    """(scenario, outcome without the policy, outcome with it) for every show."""
    return [(show.name, simulate(show, with_policy=False), simulate(show, with_policy=True)) for show in shows()]


def main() -> None:
    """Print the table as Markdown."""
    print("| scenario | misses without / with | p95 latency without / with, ms | mean steps | changes a minute |")
    print("|---|---|---|---|---|")
    for name, without, with_ in table():
        print(
            f"| {name} | {without.missed:.1%} / {with_.missed:.1%} | "
            f"{without.p95_s * 1000:.0f} / {with_.p95_s * 1000:.0f} | {with_.steps:.2f} | {with_.changes} |"
        )


if __name__ == "__main__":
    main()
