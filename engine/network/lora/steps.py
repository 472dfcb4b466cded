"""The steps of a fader move: small pieces of a merge, and what has to be computed again after them.

The steps stand in one fixed order: first the parameters outside the blocks, then block after block, each followed by
what is computed from its weights in advance. So the prompt's keys of a block are read again when all of it is merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.network.lora.target import Target, part_bytes
from engine.network.lora.updates import Lora


class Step(Protocol):
    """One piece of work.

    Attributes:
        kind: steps of one kind take a time in proportion to their work.
    """

    kind: str

    def due(self, strengths: tuple[float, ...]) -> bool:
        """Whether it has to be done for weights of these strengths."""
        ...

    def work(self, strengths: tuple[float, ...]) -> float:
        """How much there is to do then, in any unit of its kind; 0 for nothing."""
        ...

    def run(self, loras: Sequence[Lora | None], strengths: tuple[float, ...]) -> None:
        """Do it."""
        ...


@dataclass(slots=True, eq=False)
class Refresh:
    """A `Step` that computes something again once weights have changed that it depends on.

    Attributes:
        kind: what is computed.
        again: computes it.
        wanted: whether such weights have changed since.
    """

    kind: str
    again: Callable[[], None]
    wanted: bool = False

    def due(self, strengths: tuple[float, ...]) -> bool:
        """See `Step`."""
        return self.wanted

    def work(self, strengths: tuple[float, ...]) -> float:
        """See `Step`: always as much."""
        return 1.0

    def run(self, loras: Sequence[Lora | None] = (), strengths: tuple[float, ...] = ()) -> None:
        """See `Step`."""
        self.wanted = False
        self.again()


@dataclass(slots=True, eq=False)
class Merge:
    """A `Step` that writes parts of parameters of one block.

    Attributes:
        parts: the parameters, each with the number of its part.
        after: what depends on each of them.
        size: bytes of the originals.
        built: the strengths with which it was done last; None if it has to be done in any case.
    """

    parts: list[tuple[Target, int]]
    after: list[tuple[Refresh, ...]]
    size: int = 0
    built: tuple[float, ...] | None = None
    kind: str = "merge"

    def due(self, strengths: tuple[float, ...]) -> bool:
        """See `Step`."""
        if self.built == strengths:
            return False
        return self.built is None or any(target.due(part, strengths) for target, part in self.parts)

    def work(self, strengths: tuple[float, ...]) -> float:
        """See `Step`."""
        return sum(target.work(part, strengths) for target, part in self.parts if target.due(part, strengths))

    def run(self, loras: Sequence[Lora | None], strengths: tuple[float, ...]) -> None:
        """See `Step`."""
        for (target, part), after in zip(self.parts, self.after, strict=True):
            if target.due(part, strengths) and target.build(part, loras, strengths):
                for refresh in after:
                    refresh.wanted = True
        self.built = strengths


def divided(targets: Iterable[tuple[Target, tuple[Refresh, ...]]]) -> list[Merge]:
    """The steps that write these parameters: parts of them, of about the size of `target.part_bytes` together.

    Args:
        targets: the parameters, each with what depends on it.
    """
    steps: list[Merge] = []
    for target, after in targets:
        most = part_bytes(target.live.device)
        for part in range(len(target.parts)):
            size = target.bytes_of(part)
            if not steps or steps[-1].size + size > most:
                steps.append(Merge([], []))
            steps[-1].parts.append((target, part))
            steps[-1].after.append(after)
            steps[-1].size += size
    return steps
