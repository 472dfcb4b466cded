"""When something that failed is tried again: soon at first, later less often."""

from __future__ import annotations

import time

FIRST_S = 1.0
"""Pause after the first failure, in s; doubled after each further one."""

LONGEST_S = 8.0
"""Longest pause, in s."""

STEADY_S = 5.0
"""After this long without a failure the next pause is `FIRST_S` again, in s."""


class Backoff:
    """The pauses of one thing that is tried repeatedly."""

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._failed_at = float("-inf")

    @property
    def over(self) -> bool:
        """Whether the pause is over, so that it may be tried again."""
        return time.monotonic() >= self._failed_at + self._pause_s

    def failed(self) -> None:
        """Begin a pause."""
        self._pause_s = min(max(FIRST_S, 2 * self._pause_s), LONGEST_S)
        self._failed_at = time.monotonic()

    def worked(self) -> bool:
        """Note that it works now; returns whether it has been well for `STEADY_S`, which forgets the failures."""
        if self._pause_s == 0.0 or time.monotonic() < self._failed_at + self._pause_s + STEADY_S:
            return False
        self.reset()
        return True

    def reset(self) -> None:
        """Forget the failures."""
        self._pause_s = 0.0
        self._failed_at = float("-inf")
