"""The SLO scheduler: decides how the next chunk is processed so that rate and latency hold (a `Plan`).

The inputs are how long frames have waited and how long chunks took. The functions are pure, without clock or thread:
the same inputs always give the same plan. All state is a frozen `Policy` value that the caller keeps.

Model of the time of one forward (StreamDiffusionV2, arXiv 2511.07399, section 4.2): a forward of B rows is bound by
memory traffic, L(B) = (A(B) + P) / (eta BW). One part is the same for every call (parameters, launches) and one grows
with B, so L = call + B row. With n denoising steps the stream batch has B = n rows, and a result is available n - 1
chunks later. So fewer steps shorten both the forward and the lag. The number of latent frames of a chunk is not varied,
because the networks are trained for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

MAX_LOAD = 0.97
"""Share of the chunk's period above which a plan is too slow; the rest is a margin for jitter."""

MAX_LOAD_TO_RAISE = 0.80
"""Share of the chunk's period that a plan with more steps may take to be tried."""

RAISE_LATENCY = 0.95
"""Share of the wanted latency that must suffice for a plan with more steps, and beyond which frames are too late."""

SLOW_CHUNKS = 3
"""Number of consecutive slow chunks after which steps are lowered, so that a single one has no effect."""

GROSS_LOAD, GROSSLY_SLOW_CHUNKS = 2.0, 2
"""Chunks that take more than this many periods are grossly slow: fewer of them lower the steps."""

MOST_WAIT = 2.0
"""A frame waits for this many periods at most before its chunk is begun, its chunk's own period included, or for as
long as a chunk takes if that is longer. So the latency is at most the time of one chunk more than without waiting,
whatever latency is wanted: overload drops frames, it never queues them."""

RECOVERY_S = 3.0
"""Seconds of spare capacity before steps are raised again; doubles with every failed attempt up to `RECOVERY_MAX_S`."""

RECOVERY_MAX_S = 48.0
"""Upper limit of the recovery time in s."""

SLOWEST_FPS = 1.0
"""Slower inputs are treated as if they had this frame rate."""

SMOOTHING = 0.25
"""Weight of the newest chunk in the moving averages of times, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The wanted operation.

    Attributes:
        steps: setting of the control.
        latency_s: latency from capture to send, in s.
        fps: frame rate of the output; 0 for that of the input.
        frames_per_latent: pixel frames of a chunk.
        batch: whether the stream batch is used.
        hold: whether steps are lowered to hold rate and latency. If not, only waiting frames are dropped.
        extra_forwards: forwards of a chunk besides its denoising steps; 0 with the stream batch.
    """

    steps: int
    latency_s: float
    fps: float = 0.0
    frames_per_latent: int = 4
    batch: bool = True
    hold: bool = True
    extra_forwards: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """The current load.

    Attributes:
        waiting: number of waiting pixel frames.
        oldest_s: age of the oldest one in s.
        input_fps: frame rate of the input in 1/s.
    """

    waiting: int
    oldest_s: float
    input_fps: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How to process the next chunk.

    Attributes:
        rows: rows of the stream batch; 1 if the steps of a chunk run one after the other.
        steps: number of denoising steps, at most the wanted number.
        skip: number of waiting pixel frames to drop, oldest first, before the chunk is taken.
        late: whether the wanted latency or rate still cannot be held.
        reason: for the user: why the plan differs from the goal, or what to do where the goal cannot be reached; empty
            if there is nothing to say.
        extra_forwards: as in `Goal`.
    """

    rows: int
    steps: int
    skip: int = 0
    late: bool = False
    reason: str = ""
    extra_forwards: int = 0

    @property
    def forwards(self) -> int:
        """Forwards of the chunk, one after the other: one with the stream batch, else one for each step."""
        return (1 if self.rows == self.steps else self.steps) + self.extra_forwards


@dataclass(frozen=True, slots=True)
class Cost:
    """Moving estimate of the time of a forward, call + rows * row.

    Attributes:
        seen: smoothed seconds by number of rows, for those that have been measured. Others are extrapolated.
        row_share: assumed share of `row` in a forward of one row, as long as only one number of rows is measured.
    """

    seen: Mapping[int, float] = field(default_factory=dict)
    row_share: float = 0.35

    def measured(self, rows: int, seconds: float) -> Cost:
        """The estimate after another forward of `rows` rows that took `seconds`.

        All other entries are scaled by the same ratio, since the machine's speed may have changed.
        """
        old = self.seen.get(rows)
        if old is None:
            return replace(self, seen={**self.seen, rows: seconds})
        new = old + SMOOTHING * (seconds - old)
        ratio = new / old
        return replace(self, seen={k: new if k == rows else v * ratio for k, v in self.seen.items()})

    def seconds(self, rows: int) -> float:
        """Expected seconds of a forward; 0 if nothing has been measured yet."""
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
    """State of the scheduler between two chunks; `Policy()` is the initial one.

    Attributes:
        steps: number of denoising steps of the last plan.
        slow_chunks: number of consecutive chunks that were too slow.
        spare_s: seconds for which there has been spare capacity.
        recovery_s: seconds of spare capacity before steps are raised.
        raised: whether steps were raised since they were lowered last.
        thinning: fraction of a frame that is still to be dropped.
    """

    steps: int = 0
    slow_chunks: int = 0
    spare_s: float = 0.0
    recovery_s: float = RECOVERY_S
    raised: bool = False
    thinning: float = 0.0


def plan(goal: Goal, load: Load, cost: Cost, policy: Policy) -> tuple[Plan, Policy]:
    """Plan the next chunk.

    Steps are lowered if a chunk takes longer to process than its frames last, or if the wanted latency cannot be met;
    with `Goal.hold` only. They are raised again after some time of spare capacity. Waiting frames are dropped if they
    are too late, or chunks too slow, all the same.

    Returns:
        The plan, and the new state.
    """
    fps = max(SLOWEST_FPS, min(load.input_fps, goal.fps) if goal.fps else load.input_fps)
    period = goal.frames_per_latent / fps
    steps, policy = _steps(goal, load, cost, policy, period)
    rows = steps if goal.batch else 1
    seconds = _chunk_s(cost, steps, goal)
    skip, policy = _skip(goal, load, seconds, period, steps, policy)
    late = skip > 0 or _latency(goal, cost, steps, period) > goal.latency_s
    return Plan(rows, steps, skip, late, _reason(goal, cost, steps, period), goal.extra_forwards), policy


def holds(goal: Goal, cost: Cost, fps: float) -> bool:
    """Whether the wanted steps are expected to hold rate and latency, with the margin that raising them needs.

    Args:
        goal: the wanted operation.
        cost: measured times.
        fps: pictures per second.
    """
    period = goal.frames_per_latent / max(SLOWEST_FPS, fps)
    in_time = _chunk_s(cost, goal.steps, goal) <= MAX_LOAD_TO_RAISE * period
    return in_time and _latency(goal, cost, goal.steps, period) <= RAISE_LATENCY * goal.latency_s


def observe(cost: Cost, done: Plan, seconds: float) -> Cost:
    """Update the estimate with a chunk that was processed by the plan `done` in `seconds`."""
    return cost.measured(done.rows, seconds / done.forwards)


def expected(cost: Cost, ahead: Plan) -> float:
    """Expected seconds to process a chunk by the plan `ahead`; 0 if nothing has been measured yet."""
    return ahead.forwards * cost.seconds(ahead.rows)


def _chunk_s(cost: Cost, steps: int, goal: Goal) -> float:
    """Expected seconds to process a chunk with so many steps."""
    return expected(cost, Plan(steps if goal.batch else 1, steps, extra_forwards=goal.extra_forwards))


def _latency(goal: Goal, cost: Cost, steps: int, period: float) -> float:
    """Seconds from capture to send for the oldest frame of a chunk: collect frames, pass through all rows, compute."""
    busy = _chunk_s(cost, steps, goal)
    lag = (steps - 1) * max(period, busy) if goal.batch else 0.0
    return period + lag + busy


def _steps(goal: Goal, load: Load, cost: Cost, policy: Policy, period: float) -> tuple[int, Policy]:
    current = min(policy.steps or goal.steps, goal.steps) if goal.hold else goal.steps
    if not cost.seen or not goal.hold:
        return current, policy if policy.steps == current else replace(policy, steps=current)

    def fits(steps: int, share: float) -> bool:
        margin = 1.0 if share == MAX_LOAD else RAISE_LATENCY
        within = _latency(goal, cost, steps, period) <= goal.latency_s * margin
        return _chunk_s(cost, steps, goal) <= share * period and (within or steps == 1)

    if not fits(current, MAX_LOAD) and current > 1:
        slow = policy.slow_chunks + 1
        backlog = load.oldest_s > goal.latency_s
        gross = _chunk_s(cost, current, goal) > GROSS_LOAD * period
        if slow < (GROSSLY_SLOW_CHUNKS if gross else SLOW_CHUNKS) and not backlog:
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
    """Number of frames to drop so that the remaining ones are shown within the latency, and none waits for too long.

    If the engine is too slow even with one step, frames are dropped evenly: the fraction of a frame is carried over to
    the next chunk. So motion stays steady and does not jump whenever the queue overflows.
    """
    chunk = goal.frames_per_latent
    spare = load.waiting - chunk
    if spare <= 0 or seconds <= 0.0:
        return 0, replace(policy, thinning=0.0) if policy.thinning else policy
    ratio = seconds / period
    thinning = policy.thinning + max(0.0, ratio - 1.0) * chunk if ratio > MAX_LOAD else 0.0
    even = int(thinning)
    lag = (steps - 1) * max(period, seconds) if goal.batch else 0.0
    most = max(MOST_WAIT * period, seconds)
    if goal.hold:
        most = min(most, max(goal.latency_s * RAISE_LATENCY - lag - seconds, period))
    frame_s = period / chunk
    overdue = int((load.oldest_s - most) / frame_s)
    skip = min(spare, max(even, overdue, 0))
    return skip, replace(policy, thinning=max(0.0, thinning - skip))


def _reason(goal: Goal, cost: Cost, steps: int, period: float) -> str:
    """See `Plan.reason`. The text stays the same as long as the situation does."""
    if not cost.seen:
        return ""

    def in_time(steps: int) -> bool:
        return _chunk_s(cost, steps, goal) <= MAX_LOAD * period

    def fits(steps: int) -> bool:
        return in_time(steps) and _latency(goal, cost, steps, period) <= goal.latency_s

    most = max((n for n in range(1, goal.steps + 1) if fits(n)), default=0)
    if steps <= most:
        held = f"{goal.latency_s * 1000:.0f} ms"
        return f"{steps} of {goal.steps} steps to hold the rate and {held}." if steps < goal.steps else ""
    if most:
        return f"{steps} steps are too many here: {most} {'fits' if most == 1 else 'fit'}."
    if not in_time(1):
        fps = goal.frames_per_latent / period
        done = min(int(goal.frames_per_latent / _chunk_s(cost, 1, goal)), round(fps) - 1)
        few = f"1 step restyles only {done} of {fps:.0f} pictures a second. Choose a smaller size or model."
        if steps < goal.steps:
            return f"{steps} of {goal.steps} steps, and still too slow: {few}"
        return f"{steps} steps are too many here, and {few}" if steps > 1 else f"Too slow here: {few}"
    need_ms = math.ceil(_latency(goal, cost, 1, period) * 100) * 10
    what = "Raise the latency target." if steps == 1 else "Raise the latency target and lower the steps."
    return f"{goal.latency_s * 1000:.0f} ms cannot be held here: 1 step needs {need_ms} ms. {what}"
