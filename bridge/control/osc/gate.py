"""Decides from which hosts datagrams are obeyed, and how many bytes each host may be sent.

| host | obeyed | may be sent |
|---|---|---|
| loopback | yes | `LOOPBACK_BYTES` a second |
| on the list `osc.allow` | yes | `HOST_BYTES` a second |
| on it only by the entry `any` | yes | as much as came from it, until it has returned a random word |
| any other | no | nothing |

The sender's address of a UDP datagram can be forged. Without these rules a stranger could have Tidecast send a third
machine ten thousand times the bytes that it sent itself.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bridge.control.origin import is_loopback
from bridge.control.osc.allow import networks
from engine.control import PREFIX

WORD = PREFIX + "/echo"
"""Address of the random word; an unconfirmed host returns the message as it came."""

LOOPBACK_BYTES = 32e6
HOST_BYTES = 2e6
"""Budgets in bytes per second; the same number can be sent at once after a pause. A full update has 10 kB, and
telemetry with echoes of all controls 300 kB a second at most."""

MAX_CREDIT = 65536
"""Most bytes that an unconfirmed host can save up, and most datagrams."""

CONFIRMED_S = 60.0
"""How long a returned word counts."""

MAX_GUESSES = 3
"""Wrong words after which a new one is made."""

MAX_HOSTS = 512
"""Most hosts of a kind (obeyed or not) that are remembered; the ones longest silent are forgotten first."""

REMIND_S = 60.0
"""Shortest time between two reports of the same refused host."""

MAX_REPORTS = 16
"""Most hosts that are reported as refused in `REMIND_S`."""


@dataclass(slots=True)
class _Host:
    """What is known of one host; `came` and `datagrams` are what came from it and was not yet answered, in bytes and in
    datagrams. Times are those of the gate's clock."""

    confirmed: bool
    admitted: bool
    rate: float
    budget: float
    counted_s: float
    came: int = 0
    datagrams: int = 0
    word: str = ""
    guesses: int = 0
    confirmed_until_s: float = 0.0
    refused: int = 0
    reported_s: float = float("-inf")


class Gate:
    """Shared by every UDP port of one bridge. Every method is thread-safe.

    Args:
        allow: the entries of `osc.allow`.
        report: called as (topic, text) when a host is refused, once a minute and host at most.
        clock: the time in seconds.

    Attributes:
        ports: UDP ports on which this bridge listens.

    Raises:
        ConfigError: if an entry of `allow` cannot be understood.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        report: Callable[[str, str], None] = lambda topic, text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = networks(allow)
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._strangers: OrderedDict[str, _Host] = OrderedDict()  # apart, so that they cannot displace the others
        self._reports: list[float] = []
        self.ports: set[int] = set()

    def admits(self, host: str, size: int) -> bool:
        """Whether a datagram of `size` bytes from this host is obeyed. Called for each, before anything else."""
        report = ""
        with self._lock:
            known = self._host(host)
            if known.admitted:
                known.came = min(MAX_CREDIT, known.came + size)
                known.datagrams = min(MAX_CREDIT, known.datagrams + 1)
            else:
                known.refused += 1
                report = self._refusal(host, known)
        if report:
            self._report("osc", report)
        return known.admitted

    def takes(self, host: str, sizes: Iterable[int]) -> int:
        """How many datagrams of these sizes, from the first on, may be sent to this host now; they count as sent.

        A confirmed host gets all of them or none: what is sent beyond the budget is saved up afterwards.
        """
        sizes = list(sizes)
        with self._lock:
            known, now = self._host(host), self._clock()
            if known.confirmed or known.confirmed_until_s > now:
                known.budget = min(known.rate, known.budget + known.rate * (now - known.counted_s))
                known.counted_s = now
                if known.budget <= 0.0:
                    return 0
                known.budget -= sum(sizes)
                return len(sizes)
            for number, size in enumerate(sizes):
                if known.came < size or not known.datagrams:
                    return number
                known.came -= size
                known.datagrams -= 1
            return len(sizes)

    def confirmed(self, host: str) -> bool:
        """Whether this host surely wants what it is sent."""
        with self._lock:
            known = self._host(host)
            return known.confirmed or known.confirmed_until_s > self._clock()

    def word(self, host: str) -> str:
        """The random word that this host has to return."""
        with self._lock:
            known = self._host(host)
            if not known.word:
                known.word, known.guesses = secrets.token_urlsafe(5)[:7], 0
            return known.word

    def confirm(self, host: str, word: str) -> bool:
        """Whether the host has returned its word; it counts as confirmed for `CONFIRMED_S`."""
        with self._lock:
            known = self._host(host)
            if not known.word:
                return False
            if hmac.compare_digest(known.word.encode(), word.encode()):
                known.word = ""
                known.confirmed_until_s = self._clock() + CONFIRMED_S
                return True
            known.guesses += 1
            if known.guesses >= MAX_GUESSES:
                known.word = ""
            return False

    def _host(self, host: str) -> _Host:
        known = self._hosts.get(host) or self._strangers.get(host) or self._judged(host)
        hosts = self._hosts if known.admitted else self._strangers
        hosts[host] = known
        hosts.move_to_end(host)
        if len(hosts) > MAX_HOSTS:
            hosts.popitem(last=False)
        return known

    def _judged(self, host: str) -> _Host:
        if is_loopback(host):
            return _Host(True, True, LOOPBACK_BYTES, LOOPBACK_BYTES, self._clock())
        address = ipaddress.ip_address(host)
        inside = [network for network in self._allowed if address in network]
        named = any(network.prefixlen > 0 for network in inside)
        return _Host(named, bool(inside), HOST_BYTES, HOST_BYTES, self._clock())

    def _refusal(self, host: str, known: _Host) -> str:
        """What to report about a refused datagram; empty if this was reported lately."""
        now = self._clock()
        if now - known.reported_s < REMIND_S:
            return ""
        self._reports = [at for at in self._reports if now - at < REMIND_S]
        if len(self._reports) >= MAX_REPORTS:
            return ""
        self._reports.append(now)
        known.reported_s = now
        count = "" if known.refused == 1 else f" ({known.refused} messages so far)"
        return (
            f"OSC from {host} is not obeyed{count}: that machine is not on the list osc.allow. To allow it, start with "
            f'--osc-allow {host}, or write allow = ["{host}"] under [osc].'
        )
