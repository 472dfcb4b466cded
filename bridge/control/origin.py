"""Who sent a message, and what the sender may do.

Every way in (OSC, the compatibility modes, OSCQuery, the page, MIDI) makes an `Origin`; the store passes it on to the
rules of restricted controls (`ControlStore.restrict`) and to listeners.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass


class Trust(enum.IntEnum):
    """What a sender may do; a higher level may do everything that a lower one may."""

    NETWORK = 0
    """Another machine: on the list `osc.allow`, or a page that has the token."""

    MACHINE = 1
    """A program, a page or a MIDI controller on this machine."""

    OPERATOR = 2
    """The person who started Tidecast, by command line and configuration; also Tidecast's own changes."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent a message.

    Attributes:
        name: such as `osc:192.168.1.7:52000`, `midi:nanoKONTROL2`, `web:1`; shown to users, and compared by clients to
            recognise their own changes.
        trust: what the sender may do.
        address: the host and UDP port that the sender sent from; None if it did not send by UDP.
    """

    name: str
    trust: Trust
    address: tuple[str, int] | None = None


INTERNAL = Origin("", Trust.OPERATOR)
"""Tidecast itself."""


def trust_of(host: str) -> Trust:
    """The trust in a sender at this IP address: `MACHINE` on loopback, else `NETWORK`. Whether the
    network is obeyed at all is decided before."""
    return Trust.MACHINE if is_loopback(host) else Trust.NETWORK


def is_loopback(host: str) -> bool:
    """Whether this is an IP address of loopback, also in IPv6's form of an IPv4 address (`::ffff:127.0.0.1`)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
