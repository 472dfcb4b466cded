"""Keeps what Tidecast sends from coming back as a message.

A subscriber may be another Tidecast, this one, or a program that returns whatever it gets. Each echo is sent in three
forms, and the coarsest of them, `/midi`, has 128 steps: a returned echo would round the value that it tells.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable
from typing import Any

import ifaddr

from bridge.control.origin import is_loopback
from bridge.control.osc.echoes import FORMS
from bridge.control.osc.packet import Message
from bridge.control.osc.udp import Address
from bridge.control.table import ControlTable
from engine.control import PREFIX, Control

SERVER_S = 10.0
"""How long a sender of readings counts as a server after the last one, in s."""

RETURNED_S = 2.0
"""A message that says the same as an echo counts as returned for this long after it, in s."""

MAX_SERVERS = 64
REPORT_S = 60.0

ANSWERS = ("/error", "/pong", "/midi/learned")
"""Addresses below `PREFIX` that only a server sends, besides those of the readings."""


class Servers:
    """The senders that are Tidecasts themselves, or return what they get: they send what only a server sends.

    Nothing from such a sender is obeyed or answered, else two instances that are subscribed to each other would set
    each other's controls to rounded values, and complain to each other for ever.

    Args:
        table: declares the readings.
        report: called as (topic, text) when there is one, once a minute at most.
    """

    def __init__(self, table: ControlTable, report: Callable[[str, str], None]) -> None:
        self._told_only = frozenset(
            [*(PREFIX + reading.address for reading in table.readings), *(PREFIX + address for address in ANSWERS)]
        )
        self._report = report
        self._reported_s = float("-inf")
        self._until_s: dict[Address, float] = {}

    def is_one(self, sender: Address, messages: Iterable[Message], now: float) -> bool:
        """Whether these messages come from a server. Called with every datagram, in order."""
        if any(message.address in self._told_only for message in messages):
            if sender not in self._until_s and len(self._until_s) >= MAX_SERVERS:
                self._until_s = {s: until for s, until in self._until_s.items() if until > now}
            if sender in self._until_s or len(self._until_s) < MAX_SERVERS:
                self._until_s[sender] = now + SERVER_S
            if now - self._reported_s >= REPORT_S:
                self._reported_s = now
                self._report(
                    "osc",
                    f"{sender[0]}:{sender[1]} sends what Tidecast itself reports, and is not obeyed: it is another "
                    "Tidecast that was subscribed to this port, or returns what it gets.",
                )
            return True
        return self._until_s.get(sender, 0.0) > now


class Echoes:
    """The echo that was sent last for each control. A message from a subscriber that says just the same is a returned
    echo. Nothing is lost when it is not obeyed: the value is in force. Every method is thread-safe."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[Any, float]] = {}  # by address: value, time
        self._lock = threading.Lock()

    def sent(self, said: Iterable[tuple[str, Any]], now: float) -> None:
        """Remember the (address, value) pairs of an echo."""
        with self._lock:
            self._said.update({address: (value, now) for address, value in said})

    def forget(self, control: Control) -> None:
        """The control was set: its last echo no longer tells the value in force."""
        with self._lock:
            for form in FORMS:
                self._said.pop(PREFIX + control.address + form, None)

    def is_returned(self, message: Message, now: float) -> bool:
        """Whether the message says what the last echo at its address said."""
        said, at = self._said.get(message.address, (None, float("-inf")))
        if len(message.args) != 1 or now - at > RETURNED_S:
            return False
        (back,) = message.args
        if isinstance(said, (int, float)) and isinstance(back, (int, float)):
            return abs(back - said) <= 1e-6 * max(1.0, abs(said))  # an OSC float has 24 bits
        return bool(back == said)


def is_own(host: str) -> bool:
    """Whether this is an IP address of this machine."""
    if is_loopback(host):
        return True
    wanted = ipaddress.ip_address(host)
    here = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str))
    return any(ipaddress.ip_address(address) == wanted for address in here)
