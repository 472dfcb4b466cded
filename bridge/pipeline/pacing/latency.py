"""How long frames took until they were sent, and the quantile that all of pacing measures with."""

from __future__ import annotations

import math
import threading
from collections import deque

SECOND = 1_000_000_000

WINDOW_NS = 4 * SECOND
"""How far back delay, latency and rate are measured."""


class LatencyMeter:
    """Latency of every frame that was sent, over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self.count = 0

    def add(self, captured_ns: int, sent_ns: int) -> None:
        """Record one frame: when it arrived in this machine and when it was handed to the sink."""
        with self._lock:
            self.count += 1
            self._samples.append((sent_ns, sent_ns - captured_ns))
            while not 0 <= sent_ns - self._samples[0][0] <= WINDOW_NS:
                self._samples.popleft()

    def quantiles_ms(self) -> tuple[float, float, float]:
        """p50, p95 and p99 in milliseconds; zeros when nothing was sent lately."""
        with self._lock:
            values = [latency for _, latency in self._samples]
        if not values:
            return 0.0, 0.0, 0.0
        return quantile(values, 0.50) / 1e6, quantile(values, 0.95) / 1e6, quantile(values, 0.99) / 1e6


def quantile(values: list[int], share: float) -> int:
    """The smallest of `values` that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
