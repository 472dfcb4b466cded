"""How long merging takes on a device, without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch

SMOOTHING = 0.25
"""Weight of the newest measurement, 0 to 1."""


class Stopwatch(Protocol):
    """Measures work on a device and expects more of it to take as long, by its bytes."""

    def expected(self, size: int) -> float | None:
        """Seconds that work on this many bytes will take; None before the first measurement."""
        ...

    def measured(self, size: int) -> AbstractContextManager[Callable[[], float | None]]:
        """Measure the body of the `with` statement, which works on `size` bytes.

        What it returns gives the seconds afterwards; None where they are not known yet.
        """
        ...


class _Rate:
    """Seconds per byte, smoothed."""

    def __init__(self) -> None:
        self._rate: float | None = None

    def expected(self, size: int) -> float | None:
        return None if self._rate is None else self._rate * size

    def add(self, size: int, seconds: float) -> None:
        rate = seconds / max(size, 1)
        self._rate = rate if self._rate is None else self._rate + SMOOTHING * (rate - self._rate)


class HostStopwatch:
    """A `Stopwatch` for devices that do their work at once.

    Args:
        clock: returns the time in s.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._rate = clock, _Rate()

    def expected(self, size: int) -> float | None:
        """See `Stopwatch`."""
        return self._rate.expected(size)

    @contextmanager
    def measured(self, size: int) -> Iterator[Callable[[], float | None]]:
        """See `Stopwatch`."""
        seconds: list[float] = []
        began = self._clock()
        yield lambda: seconds[0]
        seconds.append(self._clock() - began)
        self._rate.add(size, seconds[0])


class CudaStopwatch:
    """A `Stopwatch` for a GPU: pairs of CUDA events, which are read once the GPU has passed them."""

    def __init__(self) -> None:
        self._rate = _Rate()
        self._running: deque[tuple[int, torch.cuda.Event, torch.cuda.Event]] = deque()

    def expected(self, size: int) -> float | None:
        """See `Stopwatch`."""
        while self._running and self._running[0][2].query():
            done, began, ended = self._running.popleft()
            self._rate.add(done, began.elapsed_time(ended) / 1e3)
        return self._rate.expected(size)

    @contextmanager
    def measured(self, size: int) -> Iterator[Callable[[], float | None]]:
        """See `Stopwatch`."""
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        yield lambda: None
        ended.record()
        self._running.append((size, began, ended))


def stopwatch_for(device: torch.device) -> Stopwatch:
    """The stopwatch of a device."""
    return CudaStopwatch() if device.type == "cuda" else HostStopwatch()
