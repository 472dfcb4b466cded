"""How much of something may be used, at once and in the long run."""

from __future__ import annotations

import time


class Allowance:
    """A token bucket: `burst` at once, then `rate` per second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._then_s = time.monotonic()

    def _refill(self) -> None:
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._then_s) * self._rate)
        self._then_s = now

    def take(self, amount: float = 1.0) -> float:
        """Take `amount`; returns how many seconds to wait before more is used, 0 within the allowance."""
        self._refill()
        self._left -= amount
        return max(0.0, -self._left / self._rate)

    @property
    def left(self) -> float:
        """What may be used at once; negative while it is overdrawn."""
        self._refill()
        return self._left

    @property
    def full(self) -> bool:
        """Whether nothing of it is in use."""
        return self.left >= self._burst
