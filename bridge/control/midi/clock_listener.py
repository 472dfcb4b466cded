"""Who hears the MIDI clock: its messages go there, with the time of their arrival, and to no binding."""

from __future__ import annotations

from typing import Protocol

CLOCK_MESSAGES = frozenset({"clock", "start", "continue", "stop", "songpos"})
"""The messages, as mido names them."""


class ClockListener(Protocol):
    """Hears the MIDI clock; `bridge.control.tempo.service.TempoService` does."""

    def wants_midi(self, name: str) -> bool:
        """Whether the port of this name is to be opened for its clock, even if it belongs to no controller."""

    def midi(self, port: str, message: str, value: int, ns: int) -> None:
        """Take a message: the port's name, one of `CLOCK_MESSAGES`, the value of a song position, and
        `time.monotonic_ns()` at its arrival. Called on the thread of the port; must be quick."""


class NoClock:
    """A `ClockListener` that wants nothing."""

    def wants_midi(self, name: str) -> bool:
        """No port."""
        return False

    def midi(self, port: str, message: str, value: int, ns: int) -> None:
        """Nothing."""
