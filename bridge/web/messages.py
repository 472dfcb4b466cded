"""What the bridge process and the web process say to each other. Knows neither of them.

Two pipe directions, always in batches, and one ring of pictures per kind (see `bridge.process.frame_ring`):

* down, a dict: `controls` {name: (value, origin)}, `readings` {name: value}, `errors` [[time, topic, reason]],
  `inputs`, `snapshots`, `midi` (whole lists), `replies` [(client, address, arguments)]; or None: stop.
* up, a list of tuples: ("serving",), ("say", address, arguments, client), ("watch", kinds), ("ask", list).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.control.table import ControlTable

KINDS = ("output", "input")
"""Kinds of preview pictures."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the web process is told at its start.

    Attributes:
        host: the address that is listened at (decides which Host headers are ours).
        token: required of every request when not empty.
        osc: host and UDP port on which OSC is listened for, for the OSCQuery tree.
        widest: longest side of a preview, pixels.
        about: names, ports and guides for the page.
        table: every control, command and reading; without their owners, which the web process need not import.
    """

    host: str
    token: str
    osc: tuple[str, int]
    widest: int
    about: dict[str, Any]
    table: ControlTable
