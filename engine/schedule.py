"""The SLO policy: from queue ages and measured stage times to a `Plan`. Pure: same inputs, same plan.

Knows no clock, no thread and no torch. The caller says how long frames have waited and how long chunks took; the
policy answers what to do with the next chunk. All state is a frozen `Policy` value that the caller keeps.

Model of one chunk (StreamDiffusionV2, arXiv 2511.07399, section 4.2): a forward of B rows is bound by memory traffic,
L(B) = (A(B) + P) / (eta BW): a part that every call pays (parameters, launches) and a part that grows with B. So
L = call + B row. With n denoising steps the stream batch has B = n rows and a result leaves n - 1 chunks later: fewer
steps make both the forward and the lag shorter. A chunk always holds the model's own number of latent frames, for the
networks were trained on blocks of that length; it never waits for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

MAX_LOAD = 0.97
"""Share of the chunk period beyond which a plan is too slow (the rest is jitter of the machine itself)."""

MAX_LOAD_TO_RAISE = 0.80
"""Share of the chunk period below which a costlier plan may be tried again."""

RAISE_LATENCY = 0.95
"""Share of the wanted latency that a costlier plan and the choice of late frames must keep to."""

SLOW_CHUNKS = 3
"""Chunks in a row that must be too slow before steps are lowered: one slow chunk is an accident."""

RECOVERY_S = 3.0
"""Seconds of spare time before steps are raised again; doubles with every failed attempt, up to `RECOVERY_MAX_S`."""

RECOVERY_MAX_S = 48.0

SLOWEST_FPS = 1.0
"""Slower inputs are planned for as if they came at this rate."""

SMOOTHING = 0.25
"""Weight of the newest chunk in the moving averages of times."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted. `steps` is the setting of the control; `latency_s` from capture to send, `fps` of the output
    (0: whatever comes in); `frames_per_latent` pixel frames of a chunk; `batch` whether its steps share forwards."""

    steps: int
    latency_s: float
    fps: float = 0.0
    frames_per_latent: int = 4
    batch: bool = True


@dataclass(frozen=True, slots=True)
class Load:
    """What was seen: pixel frames that wait, the age of the oldest in s, and the input's rate in 1/s."""

    waiting: int
    oldest_s: float
    input_fps: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the next chunk.

    Attributes:
        rows: rows of the stream batch (1 when the steps of a chunk run one after the other).
        steps: denoising steps in force, at most the wanted number.
        skip: oldest waiting pixel frames to drop before the chunk is cut.
        late: True if the wanted latency or rate cannot be held even so.
        reason: why it differs from what was wanted, for people; empty if it does not.
    """

    rows: int
    steps: int
    skip: int = 0
    late: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a call as call + rows * row. A moving estimate.

    `seen` holds the smoothed time of every number of rows that was measured; what was not measured is
    extrapolated from these by the model above, with `row_share` as the guess of a row's part in a one-row chunk.
    """

    seen: Mapping[int, float] = field(default_factory=dict)
    row_share: float = 0.35

    def measured(self, rows: int, seconds: float) -> Cost:
        """The estimate after one more chunk that took `seconds`.

        A change of the machine's speed shows first in the plan that runs, so every other entry is scaled with it.
        """
        old = self.seen.get(rows)
        if old is None:
            return replace(self, seen={**self.seen, rows: seconds})
        new = old + SMOOTHING * (seconds - old)
        ratio = new / old
        return replace(self, seen={k: new if k == rows else v * ratio for k, v in self.seen.items()})

    def seconds(self, rows: int) -> float:
        """Expected seconds of a call; 0 before anything was measured."""
        if rows in self.seen:
            return self.seen[rows]
        if not self.seen:
            return 0.0
        sizes = sorted(self.seen.items())
        low, high = min(sizes), max(sizes)
        if low[0] != high[0]:
            slope = max(0.0, (high[1] - low[1]) / (high[0] - low[0]))
        else:
            slope = self.row_share * low[1] / max(1.0, 1 + self.row_share * (low[0] - 1))
        nearest = min(sizes, key=lambda item: abs(item[0] - rows))
        return max(nearest[1] + slope * (rows - nearest[0]), nearest[1] * min(1.0, rows / nearest[0]))


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy's memory between two chunks. Start with `Policy()`."""

    steps: int = 0
    slow_chunks: int = 0
    spare_s: float = 0.0
    recovery_s: float = RECOVERY_S
    raised: bool = False
    thinning: float = 0.0


def plan(goal: Goal, load: Load, cost: Cost, policy: Policy) -> tuple[Plan, Policy]:
    """Decide on the next chunk.

    Lowers the steps when chunks take longer than the frames that they hold (or when the wanted latency cannot be
    met), raises them again after a time of spare capacity, and drops the oldest waiting frames only when one step
    is still too slow. The same inputs always give the same result.
    """
    fps = max(SLOWEST_FPS, min(load.input_fps, goal.fps) if goal.fps else load.input_fps)
    period = goal.frames_per_latent / fps
    steps, policy = _steps(goal, load, cost, policy, period)
    rows = steps if goal.batch else 1
    seconds = _chunk_s(cost, steps, goal.batch)
    skip, policy = _skip(goal, load, seconds, period, steps, policy)
    late = skip > 0 or _latency(goal, cost, steps, period) > goal.latency_s
    return Plan(rows, steps, skip, late, _reason(goal, steps, skip)), policy


def observe(cost: Cost, done: Plan, seconds: float) -> Cost:
    """Learn from a chunk that ran under `done` and kept the engine busy for `seconds`."""
    per_call = seconds if done.rows == done.steps else seconds / done.steps
    return cost.measured(done.rows, per_call)


def expected(cost: Cost, ahead: Plan) -> float:
    """Seconds that a chunk will keep the engine busy under this plan; 0 before anything was measured."""
    return _chunk_s(cost, ahead.steps, batch=ahead.rows == ahead.steps)


def _chunk_s(cost: Cost, steps: int, batch: bool) -> float:
    return cost.seconds(steps) if batch else steps * cost.seconds(1)


def _latency(goal: Goal, cost: Cost, steps: int, period: float) -> float:
    """Seconds from capture to send of the oldest frame of a chunk: gather, wait for rows, compute."""
    busy = _chunk_s(cost, steps, goal.batch)
    lag = (steps - 1) * max(period, busy) if goal.batch else 0.0
    return period + lag + busy


def _steps(goal: Goal, load: Load, cost: Cost, policy: Policy, period: float) -> tuple[int, Policy]:
    current = min(policy.steps or goal.steps, goal.steps)
    if not cost.seen:
        return current, replace(policy, steps=current)

    def fits(steps: int, share: float) -> bool:
        margin = 1.0 if share == MAX_LOAD else RAISE_LATENCY
        within = _latency(goal, cost, steps, period) <= goal.latency_s * margin
        return _chunk_s(cost, steps, goal.batch) <= share * period and (within or steps == 1)

    if not fits(current, MAX_LOAD) and current > 1:
        slow = policy.slow_chunks + 1
        backlog = load.oldest_s > goal.latency_s
        if slow < SLOW_CHUNKS and not backlog:
            return current, replace(policy, steps=current, slow_chunks=slow, spare_s=0.0)
        lower = max((n for n in range(1, current) if fits(n, MAX_LOAD)), default=1)
        recovery = min(RECOVERY_MAX_S, policy.recovery_s * 2) if policy.raised else policy.recovery_s
        return lower, replace(policy, steps=lower, slow_chunks=0, spare_s=0.0, recovery_s=recovery, raised=False)
    if current < goal.steps and fits(current + 1, MAX_LOAD_TO_RAISE):
        spare = policy.spare_s + period
        if spare >= policy.recovery_s:
            return current + 1, replace(policy, steps=current + 1, slow_chunks=0, spare_s=0.0, raised=True)
        return current, replace(policy, steps=current, slow_chunks=0, spare_s=spare)
    calm = RECOVERY_S if current == goal.steps and policy.spare_s >= RECOVERY_MAX_S else policy.recovery_s
    return current, replace(
        policy,
        steps=current,
        slow_chunks=0,
        recovery_s=calm,
        spare_s=policy.spare_s + period if current == goal.steps else 0.0,
    )


def _skip(goal: Goal, load: Load, seconds: float, period: float, steps: int, policy: Policy) -> tuple[int, Policy]:
    """Frames to drop so that those that remain are shown within the latency.

    When the engine is too slow even so, frames are thinned out evenly: the fraction carries over from chunk to
    chunk, so motion stays steady instead of jumping whenever the queue overflows.
    """
    chunk = goal.frames_per_latent
    spare = load.waiting - chunk
    if spare <= 0 or seconds <= 0.0:
        return 0, replace(policy, thinning=0.0) if policy.thinning else policy
    ratio = seconds / period
    thinning = policy.thinning + max(0.0, ratio - 1.0) * chunk if ratio > MAX_LOAD else 0.0
    even = int(thinning)
    lag = (steps - 1) * max(period, seconds) if goal.batch else 0.0
    room = goal.latency_s * RAISE_LATENCY - lag - seconds
    frame_s = period / chunk
    overdue = int((load.oldest_s - max(room, period)) / frame_s)
    skip = min(spare, max(even, overdue, 0))
    return skip, replace(policy, thinning=max(0.0, thinning - skip))


def _reason(goal: Goal, steps: int, skip: int) -> str:
    parts = []
    if steps < goal.steps:
        parts.append(f"{steps} of {goal.steps} steps to hold the rate and {goal.latency_s * 1000:.0f} ms")
    if skip:
        parts.append(f"{skip} late frames skipped")
    return ", ".join(parts)
