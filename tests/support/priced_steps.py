"""A stopwatch with prices instead of a clock: what a fader move costs is counted, whatever a machine needs for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.network.lora.steps import Step


class PricedSteps:
    """A `Stopwatch` by which a merge takes a time for its work, and what is computed again a time of its own.

    Args:
        work_s: s for each unit of a merge's work.
        refresh_s: s for whatever is computed again.

    Attributes:
        ran: the steps that were done, in order, each with its price in s.
    """

    def __init__(self, work_s: float, refresh_s: float) -> None:
        self._work_s, self._refresh_s = work_s, refresh_s
        self.ran: list[tuple[Step, float]] = []

    def expected(self, step: Step, work: float) -> float:
        return self._work_s * work if step.kind == "merge" else self._refresh_s

    @contextmanager
    def measured(self, step: Step, work: float) -> Iterator[Callable[[], float]]:
        yield lambda: self.expected(step, work)
        self.ran.append((step, self.expected(step, work)))

    def take(self) -> list[Step]:
        """The steps since the last call."""
        return [step for step, _ in self.bill()]

    def bill(self) -> list[tuple[Step, float]]:
        """The steps since the last call, each with its price."""
        ran, self.ran = self.ran, []
        return ran


def total(bill: list[tuple[Step, float]]) -> float:
    """The price of these steps, s."""
    return sum(price for _, price in bill)
