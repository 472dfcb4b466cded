"""Resolume Arena: the messages that its OSC output sends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from bridge.control.compat.dialect import Changes, Dialect, number

SLOWEST_BPM, FASTEST_BPM = 20.0, 500.0
"""What 0 and 1 stand for in Resolume's messages about the tempo."""

BEND = 4.0
"""How much faster or slower our beat runs while Resolume's nudge is held, in percent."""

PRESSES = {
    "tempotap": "/tempo/tap",
    "resync": "/tempo/resync",
    "tempo/multiply": "/tempo/double",
    "tempo/divide": "/tempo/halve",
}
"""Commands below `/composition/tempocontroller`, and ours."""

STEPS = {"tempoinc": 1.0, "tempodec": -1.0}
"""Those that change the tempo, by how many beats per minute."""

HELD = {"tempopush": BEND, "tempopull": -BEND}
"""Those that are held: 1, then 0."""


class Resolume(Dialect):
    """The OSC output of Resolume Arena; its addresses are fixed. The links of the composition's dashboard move controls
    over their whole ranges, and a column recalls the snapshot of the same number. Its tempo, tap, resync and nudge are
    ours, unless the beat comes from MIDI clock or Ableton Link, which Resolume follows itself."""

    name = "resolume"
    port = 7001
    links = ("strength", "mix", "motion", "weight_1", "weight_2", "weight_3", "weight_4", "steps")
    values = frozenset(
        [f"/composition/dashboard/link{n}" for n in range(1, len(links) + 1)] + ["/composition/tempocontroller/tempo"]
    )
    ignored: ClassVar[Mapping[str, str]] = {}

    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """See `Dialect.translate`. Resolume sends everything that changes in it; other addresses are ignored."""
        link = re.fullmatch(r"/composition/dashboard/link([1-8])", address)
        if link:
            control = self.table.by_name[self.links[int(link[1]) - 1]]
            return {control.name: control.from_norm(number(address, args))}
        column = re.fullmatch(r"/composition/columns/(\d{1,3})/connect", address)
        if column and number(address, args) >= 0.5:
            return {"recall": int(column[1])}
        _, found, what = address.partition("/composition/tempocontroller/")
        if found and readings.get("tempo_source") not in ("midi", "link"):
            return self._tempo(what, address, args, readings)
        return {}

    def _tempo(self, what: str, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        if what == "tempo":
            share = min(max(number(address, args), 0.0), 1.0)
            return {"tempo_bpm": SLOWEST_BPM + (FASTEST_BPM - SLOWEST_BPM) * share}
        if what in HELD:
            return {"tempo_bend": HELD[what] if number(address, args) >= 0.5 else 0.0}
        pressed = not args or number(address, args) >= 0.5
        if what in PRESSES and pressed:
            return {"send": ((PRESSES[what], ()),)}
        if what in STEPS and pressed and "tempo" in readings:
            return {"tempo_bpm": float(readings["tempo"]) + STEPS[what]}
        return {}
