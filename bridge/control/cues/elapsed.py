"""How much time and how many beats have passed for a cue list."""

from __future__ import annotations

from bridge.control.cues.lengths import Unit
from bridge.control.tempo.state import Tempo


class Elapsed:
    """Seconds and beats since the start, by the tempo in force. They stand still in a pause.

    When the position of the beat jumps (a song is moved, another source), the beats go on from where they were, moved
    to the nearest place at which they stay in step. Belongs to one thread at a time.

    Args:
        ns: the time now.
        tempo: the beat in force.
    """

    def __init__(self, ns: int, tempo: Tempo) -> None:
        self._tempo = tempo
        self._from_ns = float(ns)
        self._base = 0.0  # beats at position 0
        self._held: tuple[float, float] | None = None

    @property
    def held(self) -> bool:
        """Whether it stands still."""
        return self._held is not None

    def follow(self, ns: float, tempo: Tempo) -> None:
        """Take the beat in force; to be called before anything is read."""
        before, self._tempo = self._tempo, tempo
        if tempo.jumps != before.jumps:
            self._base += round(before.beat_at(ns) - tempo.beat_at(ns))

    def hold(self, ns: float) -> None:
        """Stand still from now on."""
        self._held = self.seconds(ns), self.beats(ns)

    def go_on(self, ns: float) -> None:
        """Pass again, in step with the beat."""
        if self._held is None:
            return
        (seconds, beats), self._held = self._held, None
        self._from_ns = ns - seconds * 1e9
        self._base += round(beats - self.beats(ns))

    def seconds(self, ns: float) -> float:
        """Seconds at a time."""
        return self._held[0] if self._held is not None else (ns - self._from_ns) / 1e9

    def beats(self, ns: float) -> float:
        """Beats at a time."""
        return self._held[1] if self._held is not None else self._tempo.beat_at(ns) + self._base

    def at(self, unit: Unit, ns: float) -> float:
        """Seconds or beats at a time, as a length of this unit is counted."""
        return self.seconds(ns) if unit is Unit.SECONDS else self.beats(ns)

    def beats_at(self, position: float) -> float:
        """Beats at a position of the beat."""
        return position + self._base

    def position(self, unit: Unit, count: float) -> float | None:
        """The position of the beat at which so many seconds or beats have passed; None while the beat stands still."""
        if not self._tempo.moving:
            return None
        if unit is Unit.SECONDS:
            return self._tempo.beat_at(self._from_ns + count * 1e9)
        return count - self._base

    def ns_at(self, unit: Unit, count: float) -> float | None:
        """When so many seconds or beats have passed; None if that is not known, in a pause or without a beat."""
        if self._held is not None:
            return None
        if unit is Unit.SECONDS:
            return self._from_ns + count * 1e9
        return self._tempo.ns_at(count - self._base) if self._tempo.moving else None
