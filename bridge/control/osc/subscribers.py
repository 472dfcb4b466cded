"""Who gets echoes and telemetry, and until when. Pure bookkeeping: the time is an argument.

Must not know messages.
"""

from __future__ import annotations

import threading

from bridge.control.osc.udp import Address

SILENCE_SECONDS = 30.0
"""A subscription ends when nothing came from its host for this long."""

MAX_SUBSCRIBERS = 64


class Subscribers:
    """Subscriptions by the address they are sent to. Every method is thread-safe.

    Clients differ in whether they send from the port on which they listen, from another that they keep, or
    from a new one each time. So any message from a host renews every subscription of that host, and an
    answer goes to the port it came from and to the port to which the same sender had subscribed.
    """

    def __init__(self) -> None:
        self._until: dict[Address, float] = {}
        self._source: dict[Address, Address] = {}
        self._lock = threading.Lock()

    def add(self, target: Address, source: Address, now: float) -> bool:
        """Begin or renew a subscription asked for by `source`; False if there are too many already."""
        with self._lock:
            if target not in self._until and len(self._until) >= MAX_SUBSCRIBERS:
                return False
            self._until[target] = now + SILENCE_SECONDS
            self._source[target] = source
            return True

    def renew(self, host: str, now: float) -> None:
        """Something came from `host`."""
        with self._lock:
            for target in self._until:
                if target[0] == host:
                    self._until[target] = now + SILENCE_SECONDS

    def current(self, now: float) -> tuple[Address, ...]:
        """The addresses that are subscribed at `now`; ended ones are forgotten."""
        with self._lock:
            for target in [t for t, until in self._until.items() if until <= now]:
                del self._until[target], self._source[target]
            return tuple(self._until)

    def answers(self, source: Address) -> tuple[Address, ...]:
        """Where an answer to a message from `source` goes."""
        with self._lock:
            own = [t for t, s in self._source.items() if s == source]
            if not own:
                own = [t for t in self._source if t[0] == source[0]]
        return tuple(dict.fromkeys((source, *own)))
