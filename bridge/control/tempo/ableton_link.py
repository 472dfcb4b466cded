"""Ableton Link, where the extra `link` is installed (LinkPython-extern, which contains Link: GPL-2.0-or-later).

Joining a session never changes its tempo: the object is made long before it is enabled, because one that is enabled at
once has taken over the tempo of Ableton Live, and the tempo is only set by a person. No callbacks are used: they would
run on Link's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bridge.control.tempo.state import Line
from engine.errors import TidecastError

SETTLE_NS = 500_000_000
"""Shortest time from making the object, or changing its tempo while it is off, to enabling it."""

MAP_NS = 1_000_000_000
"""Time between two comparisons of Link's clock with ours: they run apart where our clock is adjusted by the network."""

BRACKETS = 5
"""Readings of both clocks for one comparison; the closest of them counts."""


class LinkError(TidecastError):
    """Ableton Link cannot be used."""


def open_library() -> Any:
    """The module `link`.

    Raises:
        LinkError: if it is not installed or cannot be loaded.
    """
    try:
        import link
    except ImportError as error:
        raise LinkError(
            f"Ableton Link is not installed ({error.name or error}).", "Run: pip install 'tidecast[link]'."
        ) from error
    return link


class AbletonLink:
    """This program in a session of Ableton Link. Belongs to one thread.

    Args:
        library: the module `link`.
        bpm: the tempo while there is no session.
        clock: the time in ns.
    """

    def __init__(self, library: Any, bpm: float, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._link = library.Link(bpm)
        self._settled_ns = clock() + SETTLE_NS
        self._offset_ns = 0  # Link's clock minus ours
        self._map_ns = 0

    @property
    def enabled(self) -> bool:
        """Whether it takes part in a session."""
        return bool(self._link.enabled)

    def enable(self, on: bool, bpm: float, ns: int) -> bool:
        """Join or leave; to be called until it is done.

        Args:
            on: whether to take part.
            bpm: the tempo to go on with while there is no session.
            ns: the time now.

        Returns:
            Whether it is as it was asked for.
        """
        if self._link.enabled == on:
            return True
        if on and abs(self._link.captureSessionState().tempo() - bpm) > 0.01:
            self.set_bpm(bpm)
            self._settled_ns = max(self._settled_ns, ns + SETTLE_NS)
        if on and ns < self._settled_ns:
            return False
        self._link.enabled = on
        return True

    def set_bpm(self, bpm: float) -> None:
        """Set the tempo, of everybody in the session."""
        state = self._link.captureSessionState()
        state.setTempo(bpm, self._link.clock().micros())
        self._link.commitSessionState(state)

    def read(self, quantum: int) -> tuple[Line, int]:
        """The position over time in our time, and the number of other programs in the session.

        Args:
            quantum: beats of a bar; a bar begins at its multiples.
        """
        ns = self._clock()
        if ns >= self._map_ns:
            self._map_clock()
            self._map_ns = ns + MAP_NS
        micros = (ns + self._offset_ns) // 1000
        state = self._link.captureSessionState()
        beat = float(state.beatAtTime(micros, float(quantum)))
        return Line(float(micros * 1000 - self._offset_ns), beat, float(state.tempo())), int(self._link.numPeers())

    def _map_clock(self) -> None:
        best = None
        for _ in range(BRACKETS):
            before = self._clock()
            micros = int(self._link.clock().micros())
            after = self._clock()
            if best is None or after - before < best:
                best = after - before
                self._offset_ns = micros * 1000 - (before + after) // 2
