"""A stand-in for the module `link` of LinkPython-extern: one session in this process, whose clock is not ours."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

CLOCK_AHEAD_US = 257_000
"""How far the session's clock is from `time.monotonic_ns`, as with CLOCK_MONOTONIC_RAW."""


def micros() -> int:
    """The time of the session's clock."""
    return time.monotonic_ns() // 1000 + CLOCK_AHEAD_US


@dataclass
class Session:
    """What all peers share."""

    bpm: float = 120.0
    us: int = 0
    beat: float = 0.0
    peers: list[Link] = field(default_factory=list)
    set_by: list[float] = field(default_factory=list)
    enabled_at_us: list[int] = field(default_factory=list)

    def beat_at(self, us: int) -> float:
        return self.beat + (us - self.us) * self.bpm / 60e6

    def set(self, bpm: float, us: int) -> None:
        self.beat, self.us, self.bpm = self.beat_at(us), us, bpm


class SessionState:
    """A copy of a session's state."""

    def __init__(self, session: Session) -> None:
        self._copy = Session(session.bpm, session.us, session.beat)
        self.changed: tuple[float, int] | None = None

    def tempo(self) -> float:
        return self._copy.bpm

    def setTempo(self, bpm: float, us: int) -> None:
        self._copy.set(bpm, us)
        self.changed = (bpm, us)

    def beatAtTime(self, us: int, quantum: float) -> float:
        assert isinstance(us, int) and isinstance(quantum, float)
        return self._copy.beat_at(us)


class Clock:
    def micros(self) -> int:
        return micros()


class Library:
    """The module: every `Link` that is enabled joins its one session."""

    def __init__(self) -> None:
        self.session = Session(us=micros())
        self.made: list[Link] = []

    def Link(self, bpm: float) -> Link:
        self.made.append(Link(self, bpm))
        return self.made[-1]


class Link:
    def __init__(self, library: Library, bpm: float) -> None:
        self._library = library
        self._own = Session(bpm, micros())
        self._made_us = micros()
        self._enabled = False

    @property
    def _session(self) -> Session:
        return self._library.session if self._enabled else self._own

    @property
    def enabled(self) -> bool:
        return self._enabled

    @enabled.setter
    def enabled(self, on: bool) -> None:
        session = self._library.session
        if on and not self._enabled:
            session.enabled_at_us.append(micros() - self._made_us)
            if not session.peers:
                session.set(self._own.bpm, micros())
            session.peers.append(self)
        elif not on and self._enabled:
            session.peers.remove(self)
        self._enabled = on

    def numPeers(self) -> int:
        return max(0, len(self._library.session.peers) - 1) if self._enabled else 0

    def clock(self) -> Clock:
        return Clock()

    def captureSessionState(self) -> SessionState:
        return SessionState(self._session)

    def commitSessionState(self, state: SessionState) -> None:
        if state.changed is not None:
            self._session.set(*state.changed)
            if self._enabled:
                self._library.session.set_by.append(state.changed[0])
