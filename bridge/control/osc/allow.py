"""The list `osc.allow`: which other machines may control Tidecast over OSC."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from engine.errors import ConfigError

ANY = "any"
"""The entry for every machine."""

Networks = tuple[ipaddress.IPv4Network, ...]


def networks(entries: Iterable[str]) -> Networks:
    """The networks that a list allows; a single machine is a network of one address.

    Raises:
        ConfigError: naming the entry that is neither an address, nor a network, nor `any`, and how to write it.
    """
    return tuple(_network(entry.strip()) for entry in entries)


def _network(entry: str) -> ipaddress.IPv4Network:
    if entry.lower() == ANY:
        return ipaddress.IPv4Network("0.0.0.0/0")
    try:
        return ipaddress.IPv4Network(entry)
    except ValueError:
        pass
    try:
        whole = ipaddress.IPv4Network(entry, strict=False)
    except ValueError:
        raise ConfigError(
            f"osc.allow: {entry[:60]!r} is no address.",
            f"Write an IPv4 address (192.168.1.20), a network (192.168.1.0/24) or {ANY}.",
        ) from None
    raise ConfigError(
        f"osc.allow: {entry!r} is the address of a machine with the mask of a network.",
        f"Write {whole} for the network or {entry.split('/')[0]} for the machine.",
    )
