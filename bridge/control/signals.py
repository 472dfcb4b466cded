"""`Signals`: the newest number of everything that is heard from outside and may drive a control.

Whoever hears something puts it here under a name; a modulator that follows it reads the newest. Names are paths:

| name | put by |
|---|---|
| `audio/level`, `audio/low`, `audio/mid`, `audio/high`, `audio/onset` | the audio input, 0 to 1 |
| `osc/live/volume` | OSC: an address outside our own namespace, here `/live/volume` |
| `midi/PORT/CC` | MIDI: a controller's number on any channel, 0 to 127 |
"""

from __future__ import annotations

import math
import threading
from typing import Final

MOST: Final = 256
"""Most names; the numbers of further ones are not kept."""

LONGEST_NAME: Final = 200
"""Most characters of a name."""


class Signals:
    """Thread-safe. No method waits for longer than it takes another thread to write one entry."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[float, int]] = {}
        self._adding = threading.Lock()

    def put(self, name: str, value: float, at_ns: int) -> bool:
        """Keep the newest number of a name.

        Args:
            name: what was heard, see above.
            value: the number; one that is not finite is left out.
            at_ns: when it was heard, by `time.monotonic_ns`.

        Returns:
            Whether it was kept: not if there are `MOST` other names, or if name or number cannot be used.
        """
        if not math.isfinite(value):
            return False
        if name in self._newest:  # names are never taken away, so that this needs no lock
            self._newest[name] = (value, at_ns)
            return True
        with self._adding:
            if not name or len(name) > LONGEST_NAME or len(self._newest) >= MOST:
                return False
            self._newest[name] = (value, at_ns)
        return True

    def newest(self, name: str) -> tuple[float, int] | None:
        """The newest number of a name and when it was heard; None if nothing was."""
        return self._newest.get(name)

    def names(self) -> tuple[str, ...]:
        """The names that were heard so far, in this order."""
        return tuple(self._newest.copy())
