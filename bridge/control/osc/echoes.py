"""Values and readings as OSC datagrams for subscribers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bridge.control.osc.packet import PacketError, build
from bridge.control.table import ControlTable
from engine.control import PREFIX, Control

log = logging.getLogger(__name__)

FORMS = ("", "/norm", "/midi")
"""What follows a control's address in its own echo and in those of its twins."""

TELEMETRY_HZ = 10.0

ALIVE = "state"
"""The reading that is told even when it has not changed: by it a client sees that Tidecast lives."""


def forms(control: Control, value: Any) -> list[tuple[str, Any]]:
    """(address, value) of a control's effective value and of its twins."""
    base = PREFIX + control.address
    found: list[tuple[str, Any]] = [(base, int(value) if isinstance(value, bool) else value)]
    if control.numeric:
        found += [(base + "/norm", control.to_norm(value)), (base + "/midi", control.to_midi(value))]
    return found


def encoded(address: str, *values: Any) -> list[bytes]:
    """One message as a list of one datagram. The list is empty, and a warning is logged, if OSC cannot carry a value:
    a text that is too long for a datagram, or a path that is not Unicode."""
    try:
        return [build(address, values)]
    except PacketError as error:
        log.warning("%s", error)
        return []


class Readings:
    """What the readings are, for all, and what is new of them, for those who know the rest.

    Args:
        table: declares the readings.
    """

    def __init__(self, table: ControlTable) -> None:
        self._rows = table.readings_by_name
        self._told: Mapping[str, Any] = {}

    def all(self, now: Mapping[str, Any]) -> list[bytes]:
        """The datagrams of these readings (value by name)."""
        return [message for name, value in now.items() for message in encoded(PREFIX + self._rows[name].address, value)]

    def news(self, now: Mapping[str, Any], beat: bool) -> list[bytes]:
        """The datagrams of `ALIVE` and of what has changed since the last call; at a heartbeat those of all."""
        before, self._told = self._told, now
        if beat:
            return self.all(now)
        fast = [name for name in now if self._rows[name].hertz >= TELEMETRY_HZ]
        return self.all({name: now[name] for name in fast if name == ALIVE or before.get(name) != now[name]})
