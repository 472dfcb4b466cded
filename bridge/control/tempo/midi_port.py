"""Which MIDI port's clock is followed."""

from __future__ import annotations

SILENT_NS = 2_000_000_000
"""Another port may take over when the one that was followed has been silent for this long."""


class PortChoice:
    """The port that is followed. Thread-safe as far as it has to be: of two ports that begin at once, one wins.

    Attributes:
        changed: whether the last message that was heard came from another port than the one before.
    """

    def __init__(self) -> None:
        self._port = ""
        self._heard_ns = 0
        self.changed = False

    def hears(self, port: str, wanted: str, ns: int) -> bool:
        """Whether a message of this port is followed.

        Args:
            port: the port's name.
            wanted: a part of the name of the port to follow; empty for the first that sends.
            ns: the time of the message.
        """
        if wanted and wanted.lower() not in port.lower():
            return False
        other = bool(self._port) and port != self._port
        if other and wanted.lower() in self._port.lower() and ns - self._heard_ns < SILENT_NS:
            return False
        self.changed = other
        self._port, self._heard_ns = port, ns
        return True
