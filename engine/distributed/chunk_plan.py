"""The denoising steps planned for each chunk in flight, and the slots in which chunks wait for their next call.

Each step is planned in the call in which the single process would have executed it, with the prompt and the noise of
that call. The pipeline executes it later, with the same result.

Shape letters: C latent channels, F latent frames of a chunk, h w latent size, S rows of the stream batch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from torch import Tensor

from engine.stream.state import InFlight, Ticket
from engine.stream.timesteps import Sigmas, mix


@dataclass(slots=True, eq=False)
class ChunkPlan:
    """One chunk in flight and its planned steps.

    Attributes:
        flight: the chunk as it entered the stream.
        index: number of the chunk since the stream began; negative for the empty chunks of a warm start.
        timesteps: the timestep of each of its steps; shortened when the number of steps is lowered.
        texts: text version of each planned step.
        noises: for each planned step but a last one, the noise [1, C, F, h, w] that is mixed in after it.
        opens_row: steps that add a row to the cache: before them, their own cache row is copied to the next row.
        taken: number of executed steps, which is also the stream batch row of the next one.
        clean: clean latents [1, C, F, h, w] predicted by the newest executed step; None before the first one.
    """

    flight: InFlight
    index: int
    timesteps: tuple[int, ...]
    texts: list[int] = field(default_factory=list)
    noises: list[Tensor] = field(default_factory=list)
    opens_row: set[int] = field(default_factory=set)
    taken: int = 0
    clean: Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether all its steps have been executed."""
        return self.taken == len(self.timesteps)


@dataclass(slots=True, eq=False)
class InterleaveSlot:
    """Chunks that share their calls. With n calls in flight there are n slots, and every n-th chunk is in the same one.

    Attributes:
        x_SCFhw: input of the next call, one row per step.
        plans: the slot's chunks, newest first.
        running: the chunks of the call that is in flight; empty if there is none.
    """

    x_SCFhw: Tensor
    plans: list[ChunkPlan] = field(default_factory=list)
    running: list[ChunkPlan] = field(default_factory=list)

    def advance(self, clean_SCFhw: Tensor, sigmas: Sigmas) -> None:
        """Take the clean latents that the call predicted, and prepare the next step of each of its chunks."""
        for row, plan in enumerate(self.running):
            plan.clean, step = clean_SCFhw[row : row + 1], plan.taken
            plan.taken = step + 1
            if not plan.done:
                sigma = sigmas.by_timestep[plan.timesteps[step + 1]]
                self.x_SCFhw[step + 1 : step + 2] = mix(plan.clean, plan.noises[step], sigma)
        self.running = []
        self.plans = [plan for plan in self.plans if not plan.done]

    def clear(self) -> None:
        """Remove its chunks; no call may be in flight."""
        self.plans = []
        self.x_SCFhw.zero_()


def plan_steps(plans: deque[ChunkPlan], newest: ChunkPlan, text: int) -> list[ChunkPlan]:
    """Plan one step for every chunk that the single process would have in flight in this call.

    Args:
        plans: all chunks in flight, oldest first, `newest` included.
        newest: the chunk that starts with this call. If it has fewer steps than older chunks, these are shortened to as
            many steps, or to the step planned now if they are already further.
        text: version of the current prompt.

    Returns:
        The chunks that have a further step after this one, newest first; each needs noise for it.
    """
    in_flight = [p for p in reversed(plans) if newest.index - p.index < len(p.timesteps)]
    unfinished = []
    for step, plan in enumerate(in_flight):
        plan.timesteps = plan.timesteps[: max(len(newest.timesteps), step + 1)]
        plan.texts.append(text)
        if len(plan.timesteps) > step + 1:
            unfinished.append(plan)
    if len(unfinished) == len(in_flight):
        in_flight[-1].opens_row.add(len(in_flight) - 1)
    return unfinished


def finished(plans: deque[ChunkPlan]) -> list[tuple[Ticket, Tensor]]:
    """Remove the finished chunks up to the first unfinished one; returns (ticket, clean latents), oldest first."""
    done = []
    while plans and plans[0].done:
        plan = plans.popleft()
        if plan.index >= 0 and plan.clean is not None:
            done.append((plan.flight.ticket, plan.clean))
    return done


def text_versions(steps: int, ranks: int) -> int:
    """Most prompts in use at once, if every call has a new one: the newest and those of the planned steps."""
    return (steps - 1) * (ranks - 1) + 1
