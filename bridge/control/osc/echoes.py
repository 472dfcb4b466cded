"""What subscribers are told, as OSC datagrams. Pure."""

from __future__ import annotations

import logging
from typing import Any

from bridge.control.osc.packet import PacketError, build
from engine.control import PREFIX, Control

log = logging.getLogger(__name__)


def echoes(control: Control, value: Any) -> list[bytes]:
    """The datagrams that tell a control's effective value: at its address and at its twins."""
    base = PREFIX + control.address
    found = told_at(base, int(value) if isinstance(value, bool) else value)
    if control.numeric:
        found += told_at(base + "/norm", control.to_norm(value))
        found += told_at(base + "/midi", control.to_midi(value))
    return found


def told_at(address: str, *values: Any) -> list[bytes]:
    """One message as a list of datagrams; empty, with a line in the log, for what OSC cannot say: a text too long
    for a datagram, a path whose name is not Unicode."""
    try:
        return [build(address, values)]
    except PacketError as error:
        log.warning("%s", error)
        return []
