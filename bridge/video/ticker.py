"""Frame times for sources that generate their pictures."""

from __future__ import annotations

import time
from fractions import Fraction

from engine.errors import TransportError


class Ticker:
    """Steady frame times; frames that the caller did not take in time are skipped.

    Frame `n` is due `n / fps` seconds after the start.

    Args:
        fps: frames per second.

    Raises:
        TransportError: if the rate is not positive.
    """

    def __init__(self, fps: Fraction) -> None:
        if fps <= 0:
            raise TransportError(f"A frame rate must be positive, got {float(fps):g}.")
        self.fps = fps
        self._start_ns = time.monotonic_ns()
        self._next = 0

    def wait(self, timeout_s: float) -> tuple[int, int] | None:
        """Wait until a frame is due, for `timeout_s` at most; returns its number and how many were skipped, or None if
        none is due yet."""
        now = time.monotonic_ns()
        due = self._start_ns + self.at(self._next)
        if due > now:
            time.sleep(min((due - now) / 1e9, max(0.0, timeout_s)))
            now = time.monotonic_ns()
            if due > now:
                return None
        number = int((now - self._start_ns) * self.fps / 1_000_000_000)
        skipped = max(0, number - self._next)
        number = self._next + skipped
        self._next = number + 1
        return number, skipped

    def at(self, number: int) -> int:
        """Time of a frame in ns since the start."""
        return int(number * 1_000_000_000 / self.fps)
