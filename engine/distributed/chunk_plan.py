"""What is to be done to a chunk on its way round the ring, and the slots in which chunks wait for their next call.

Everything is settled when the single process would have done it; only the time of execution differs.

Shape letters: C latent channels, F latent frames of a chunk, h w latent size, S rows of the stream batch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from engine.stream.state import InFlight


@dataclass(slots=True, eq=False)
class ChunkPlan:
    """One chunk on its way, and what the single process would have done to it.

    Attributes:
        flight: the chunk as it came.
        index: number of the chunk since the stream began; negative for the empty chunks of a warm start.
        timesteps: its levels; shortened when the steps are lowered.
        texts: version of the text of each step that is settled.
        noises: noise [1, C, F, h, w] toward the step after each settled one.
        joins: steps with which a further cache row begins, as a copy of the step's own.
        taken: steps that were taken; the next one is taken in the row of this number.
        clean: the last thought of its picture.
    """

    flight: InFlight
    index: int
    timesteps: tuple[int, ...]
    texts: list[int] = field(default_factory=list)
    noises: list[Tensor] = field(default_factory=list)
    joins: set[int] = field(default_factory=set)
    taken: int = 0
    clean: Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether it has taken all its steps."""
        return self.taken == len(self.timesteps)


@dataclass(slots=True, eq=False)
class InterleaveSlot:
    """Chunks that take their steps in the same calls: every so-many-th one, when as many calls are under way.

    `x_SCFhw` is what enters the next call, by rows; `called` the chunks whose call is under way.
    """

    x_SCFhw: Tensor
    plans: list[ChunkPlan] = field(default_factory=list)
    called: list[ChunkPlan] = field(default_factory=list)


def settle(plans: deque[ChunkPlan], newest: ChunkPlan, text: int) -> list[ChunkPlan]:
    """Decide for every chunk that the single process would have in flight what it would do to it in this call.

    Args:
        plans: of all chunks under way, oldest first, `newest` included.
        newest: the chunk that this call begins with; where it has fewer steps, those before it end with as many.
        text: version of the text in force.

    Returns:
        The chunks that go on afterwards, newest first: each needs noise toward its next step.
    """
    flying = [p for p in reversed(plans) if newest.index - p.index < len(p.timesteps)]
    going = []
    for step, plan in enumerate(flying):
        plan.timesteps = plan.timesteps[: max(len(newest.timesteps), step + 1)]
        plan.texts.append(text)
        if len(plan.timesteps) > step + 1:
            going.append(plan)
    if len(going) == len(flying):
        flying[-1].joins.add(len(flying) - 1)
    return going


def finished(plans: deque[ChunkPlan]) -> list[tuple[Any, Tensor]]:
    """Take out the chunks that have taken all their steps, as long as none before them is still under way."""
    done = []
    while plans and plans[0].done:
        plan = plans.popleft()
        if plan.index >= 0 and plan.clean is not None:
            done.append((plan.flight.ticket, plan.clean))
    return done


def text_versions(steps: int, ranks: int) -> int:
    """How many texts can be needed at once when every call has another: those of the steps that are not taken yet."""
    return (steps - 1) * (ranks - 1) + 1
