"""Modulators with real store and telemetry, at times that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.control.modulation.service import Modulation
from bridge.control.origin import Origin, Trust
from bridge.control.signals import Signals
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.state import Line, Tempo
from bridge.table import TABLE
from engine.control import PREFIX

SECOND = 1_000_000_000
BEGIN_NS = 1_000 * SECOND
HAND = Origin("osc:127.0.0.1:5000", Trust.MACHINE)
SHOW = Origin("snapshot", Trust.OPERATOR)


class Stage:
    """Modulators whose thread is not needed: a test asks for the values of its own moments.

    Args:
        bpm: beats per minute; beat 0, and a bar, is at `BEGIN_NS`.
        lead_ms: how long after now a control is seen, in ms.
    """

    def __init__(self, bpm: float = 120.0, lead_ms: Callable[[str], float] = lambda name: 0.0) -> None:
        self.ns = BEGIN_NS
        self.store, self.telemetry, self.signals = ControlStore(TABLE), Telemetry(TABLE), Signals()
        self.errors: list[tuple[str, str]] = []
        self.telemetry.listen_errors(lambda *error: self.errors.append(error))
        self.tempo = Tempo(line=Line(float(BEGIN_NS), 0.0, bpm))
        self.modulation = Modulation(
            self.store,
            self.telemetry,
            self.signals,
            lambda: self.tempo,
            lambda name: lead_ms(name) * 1e6,
            lambda: self.ns,
        ).start()

    def close(self) -> None:
        self.modulation.stop()

    def say(self, address: str, *args: Any, origin: Origin = HAND) -> list[Any]:
        """Send a message; returns the errors that are answered."""
        answers: list[Any] = []
        self.store.handle(PREFIX + address, args, origin, lambda topic, values: answers.append(values))
        return answers

    def at(self, seconds: float) -> Stage:
        """Let it be so many seconds after the begin."""
        self.ns = BEGIN_NS + round(seconds * 1e9)
        return self

    def value(self, name: str) -> float:
        """The modulated value of a control now."""
        found: float = self.store.modulated(self.ns).value(name)
        return found

    def base(self, name: str) -> Any:
        return self.store.snapshot.value(name)
