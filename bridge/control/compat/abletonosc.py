"""AbletonOSC: beats and tempo of Ableton Live, as this remote script reports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from bridge.control.compat.dialect import Changes, Dialect, number
from bridge.control.table import ControlTable
from bridge.control.tempo.state import clamped

ASK_S = 5.0
"""Time between two requests for reports, in s: Live may have been started anew."""


class AbletonOsc(Dialect):
    """AbletonOSC listens on port 11000, and answers to port 11001 of whoever asks. Its beats are followed while the
    source of the beat is osc."""

    name = "abletonosc"
    port = 11001
    answer_port = 11000
    peer = ("127.0.0.1", 11000)
    values = frozenset({"/live/song/get/tempo"})
    ignored: ClassVar[Mapping[str, str]] = {}

    def __init__(self, table: ControlTable) -> None:
        super().__init__(table)
        self._asked = ASK_S

    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """See `Dialect.translate`. Whatever else Live reports is ignored."""
        if address in ("/live/song/get/beat", "/live/song/beat"):
            return {"send": (("/tempo/beat", (number(address, args),)),)}
        if address == "/live/song/get/tempo" and readings.get("tempo_source") == "osc":
            return {"tempo_bpm": clamped(number(address, args))}
        return {}

    def report(self, readings: Mapping[str, Any], elapsed: float) -> list[tuple[str, Any]]:
        """See `Dialect.report`: asks for beats and tempo."""
        self._asked += elapsed
        if self._asked < ASK_S:
            return []
        self._asked = 0.0
        return [("/live/song/start_listen/beat", None), ("/live/song/start_listen/tempo", None)]
