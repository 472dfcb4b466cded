"""How long the steps of a fader move take on a device, without waiting for it."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch

from engine.network.lora.steps import Step

RECENT = 9
"""What is expected is the median of so many measurements: another program may have held up some of them."""


class Stopwatch(Protocol):
    """Measures steps on a device, and expects others of their kind to take as long for as much work."""

    def expected(self, step: Step, work: float) -> float | None:
        """Seconds that a step will take; None before the first of its kind was measured."""
        ...

    def measured(self, step: Step, work: float) -> AbstractContextManager[Callable[[], float | None]]:
        """Measure the body of the `with` statement, which runs a step.

        What it returns gives the seconds afterwards; None where they are not known yet.
        """
        ...


class _Rates:
    """Seconds for a unit of work, by kind."""

    def __init__(self) -> None:
        self._rates: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    def expected(self, step: Step, work: float) -> float | None:
        rates = self._rates[step.kind]
        return work * statistics.median(rates) if rates else None

    def add(self, step: Step, work: float, seconds: float) -> None:
        if work:
            self._rates[step.kind].append(seconds / work)


class HostStopwatch:
    """A `Stopwatch` for devices that do their work at once.

    Args:
        clock: returns the time in s.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._rates = clock, _Rates()

    def expected(self, step: Step, work: float) -> float | None:
        """See `Stopwatch`."""
        return self._rates.expected(step, work)

    @contextmanager
    def measured(self, step: Step, work: float) -> Iterator[Callable[[], float | None]]:
        """See `Stopwatch`."""
        seconds: list[float] = []
        began = self._clock()
        yield lambda: seconds[0]
        seconds.append(self._clock() - began)
        self._rates.add(step, work, seconds[0])


class CudaStopwatch:
    """A `Stopwatch` for a GPU: pairs of CUDA events, which are read once the GPU has passed them."""

    def __init__(self) -> None:
        self._rates = _Rates()
        self._running: deque[tuple[Step, float, torch.cuda.Event, torch.cuda.Event]] = deque()

    def expected(self, step: Step, work: float) -> float | None:
        """See `Stopwatch`."""
        while self._running and self._running[0][3].query():
            done, amount, began, ended = self._running.popleft()
            self._rates.add(done, amount, began.elapsed_time(ended) / 1e3)
        return self._rates.expected(step, work)

    @contextmanager
    def measured(self, step: Step, work: float) -> Iterator[Callable[[], float | None]]:
        """See `Stopwatch`."""
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        yield lambda: None
        ended.record()
        self._running.append((step, work, began, ended))


def stopwatch_for(device: torch.device) -> Stopwatch:
    """The stopwatch of a device."""
    return CudaStopwatch() if device.type == "cuda" else HostStopwatch()
