"""`Signals`: the newest number of everything that is heard from outside and may drive a control.

Whoever hears something puts it here under a name; a modulator that follows it reads the newest. Names are paths without
spaces:

| name | put by |
|---|---|
| `audio/level`, `audio/low`, `audio/mid`, `audio/high`, `audio/onset` | the audio input, 0 to 1 |
| `osc/live/volume` | OSC: an address outside our own namespace, here `/live/volume` |
| `midi/PORT/CC` | MIDI: a controller's number on any channel, 0 to 127 |
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Final

OSC, MIDI = "osc", "midi"
"""First parts of the names of what comes by OSC and by MIDI; the audio input has `audio`."""

MOST: Final = 256
"""Most names."""

MOST_OF_A_KIND: Final = 96
"""Most names with the same first part, so that a flood of addresses leaves room for the others."""

LONGEST_NAME: Final = 100
"""Most characters of a name."""


class Signals:
    """Thread-safe. No method waits for longer than it takes another thread to write one entry."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[float, int]] = {}
        self._followed: frozenset[str] = frozenset()
        self._writing = threading.Lock()

    def put(self, name: str, value: float, at_ns: int) -> bool:
        """Keep the newest number of a name.

        Args:
            name: what was heard, see above.
            value: the number; one that is not finite is left out.
            at_ns: when it was heard, by `time.monotonic_ns`.

        Returns:
            Whether it was kept: not if there are too many other names, or if name or number cannot be used.
        """
        if not math.isfinite(value):
            return False
        with self._writing:
            if name not in self._newest and not self._has_room(name):
                return False
            self._newest[name] = (value, at_ns)
        return True

    def newest(self, name: str) -> tuple[float, int] | None:
        """The newest number of a name and when it was heard; None if nothing was."""
        return self._newest.get(name)

    def names(self) -> tuple[str, ...]:
        """The names that were heard so far, in this order."""
        return tuple(self._newest.copy())

    def follow(self, names: Iterable[str]) -> None:
        """Keep what is heard under these names, and no longer those of the last call, even where there are too many
        others."""
        self._followed = frozenset(names)

    def followed(self, name: str) -> bool:
        """Whether somebody follows this name."""
        return name in self._followed

    def _has_room(self, name: str) -> bool:
        """Make room for a new name; called with `_writing` held."""
        if name.split() != [name] or len(name) > LONGEST_NAME:
            return False
        kind = name.partition("/")[0]
        others = [other for other in self._newest if other.partition("/")[0] == kind]
        if len(others) < MOST_OF_A_KIND and len(self._newest) < MOST:
            return True
        left_out = next((other for other in others if other not in self._followed), None)
        if name not in self._followed or left_out is None:
            return False
        del self._newest[left_out]
        return True
