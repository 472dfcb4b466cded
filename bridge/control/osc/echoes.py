"""Values as OSC datagrams for subscribers."""

from __future__ import annotations

import logging
from typing import Any

from bridge.control.osc.packet import PacketError, build
from engine.control import PREFIX, Control

log = logging.getLogger(__name__)

FORMS = ("", "/norm", "/midi")
"""What follows a control's address in its own echo and in those of its twins."""


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
