"""The latency of the frames that were sent, and the quantile that delay and latency are measured with."""

from __future__ import annotations

import math
import threading
from collections import deque

SECOND = 1_000_000_000

WINDOW_NS = 4 * SECOND
"""The window over which delay and latency are measured."""


class LatencyMeter:
    """Latency of the frames that were sent during the last `WINDOW_NS`.

    Attributes:
        count: frames recorded since the start.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self.count = 0

    def add(self, captured_ns: int, sent_ns: int) -> None:
        """Record one frame: when it arrived at this machine and when it was passed to the sink."""
        with self._lock:
            self.count += 1
            self._samples.append((sent_ns, sent_ns - captured_ns))
            while not 0 <= sent_ns - self._samples[0][0] <= WINDOW_NS:
                self._samples.popleft()

    def quantiles_ms(self) -> tuple[float, float, float]:
        """p50, p95 and p99 in milliseconds; zeros before the first frame."""
        with self._lock:
            values = [latency for _, latency in self._samples]
        if not values:
            return 0.0, 0.0, 0.0
        return quantile(values, 0.50) / 1e6, quantile(values, 0.95) / 1e6, quantile(values, 0.99) / 1e6


def quantile(values: list[int], share: float) -> int:
    """The smallest of `values` that is not exceeded by at least `share` of them (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
