"""The subscribers to echoes and telemetry, and when each subscription ends. The time is an argument."""

from __future__ import annotations

import threading

from bridge.control.origin import is_loopback
from bridge.control.osc.udp import Address

SILENCE_SECONDS = 30.0
"""A subscription ends when nothing has come from its host for this long."""

MAX_SUBSCRIBERS = 64

MAX_OF_HOST = 8
"""Most subscriptions of one other machine."""


class Subscribers:
    """Subscriptions by the address they are sent to. Every method is thread-safe.

    Some clients send from the port on which they listen, some from another fixed port, and some from a new port each
    time. So `/ping` from a host renews every subscription of that host, and a reply goes both to the port from which
    the message came and to the port to which the same sender had subscribed.

    Only `/subscribe` and `/ping` renew: two programs that send each other echoes must not keep each other subscribed.
    """

    def __init__(self) -> None:
        self._until: dict[Address, float] = {}
        self._source: dict[Address, Address] = {}
        self._lock = threading.Lock()

    def add(self, target: Address, source: Address, now: float) -> bool:
        """Begin or renew a subscription requested by `source`; False if there are too many already."""
        with self._lock:
            if target not in self._until:
                of_host = sum(t[0] == target[0] for t in self._until)
                if len(self._until) >= MAX_SUBSCRIBERS or (of_host >= MAX_OF_HOST and not is_loopback(target[0])):
                    return False
            self._until[target] = now + SILENCE_SECONDS
            self._source[target] = source
            return True

    def renew(self, host: str, now: float) -> None:
        """Renew the subscriptions of `host`, because it has sent a `/ping`."""
        with self._lock:
            for target in self._until:
                if target[0] == host:
                    self._until[target] = now + SILENCE_SECONDS

    def current(self, now: float) -> tuple[Address, ...]:
        """The addresses that are subscribed at `now`; subscriptions that have ended are removed."""
        with self._lock:
            for target in [t for t, until in self._until.items() if until <= now]:
                del self._until[target], self._source[target]
            return tuple(self._until)

    def has(self, host: str) -> bool:
        """Whether anything is sent to this host."""
        with self._lock:
            return any(target[0] == host for target in self._until)

    def reply_targets(self, source: Address) -> tuple[Address, ...]:
        """The addresses to which a reply to a message from `source` is sent."""
        with self._lock:
            own = [t for t, s in self._source.items() if s == source]
            if not own:
                own = [t for t in self._source if t[0] == source[0]]
        return tuple(dict.fromkeys((source, *own)))
