"""Resolume Arena: the messages that its OSC output sends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from bridge.control.compat.dialect import Changes, Dialect, number


class Resolume(Dialect):
    """The OSC output of Resolume Arena; its addresses are fixed. The links of the composition's dashboard move controls
    over their whole ranges, and a column recalls the snapshot of the same number."""

    name = "resolume"
    port = 7001
    links = ("strength", "mix", "motion", "weight_1", "weight_2", "weight_3", "weight_4", "steps")
    values = frozenset(f"/composition/dashboard/link{n}" for n in range(1, len(links) + 1))
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
        return {}
