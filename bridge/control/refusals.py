"""The log of refused messages: each address once, and a few lines a minute, however many messages come."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

PERIOD_S = 60.0
LINES = 10
"""Most addresses that are named in the log within `PERIOD_S`."""


class RefusalLog:
    """Logs messages that were refused. Thread-safe.

    Within a period, the first message to an address is logged, for the first `LINES` addresses. The rest is counted,
    and told in one line with the first refusal of a later period.

    Args:
        clock: the time in s.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ends = 0.0
        self._repeats: dict[str, int] = {}  # by address that was logged: how many came after it
        self._others = 0

    def note(self, address: str, reason: str, *, traceback: bool = False) -> None:
        """Log or count one refused message; `traceback` adds that of the exception that is being handled."""
        with self._lock:
            counted = ""
            if self._clock() >= self._ends:
                counted = self._counted()
                self._ends, self._repeats, self._others = self._clock() + PERIOD_S, {}, 0
            first = address not in self._repeats
            if not first:
                self._repeats[address] += 1
            elif len(self._repeats) < LINES:
                self._repeats[address] = 0
            else:
                first = False
                self._others += 1
        if counted:
            log.warning("Refused after that: %s.", counted)
        if first:
            log.warning("%s: %s", address, reason, exc_info=traceback)

    def _counted(self) -> str:
        """What was counted and not logged."""
        parts = [f"{address} ({count} more)" for address, count in self._repeats.items() if count]
        if self._others:
            parts.append(f"{self._others} messages to other addresses")
        return ", ".join(parts)
