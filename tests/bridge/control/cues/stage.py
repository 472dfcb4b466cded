"""A cue list in simulated time: real store, clock, changes and runner, without threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.control.cues.cue_list import CueList, parsed
from bridge.control.cues.runner import CueRunner
from bridge.control.origin import Origin, Trust
from bridge.control.store import ControlStore
from bridge.control.tempo.changes import Changes
from bridge.control.tempo.clock import Clock
from bridge.table import TABLE
from engine.control import PREFIX
from engine.errors import ControlError

MS = 1_000_000
START_NS = 3_000_000_000_000
STEP_MS = 5
HAND = Origin("web:1", Trust.MACHINE)


def listed(*rows: Mapping[str, Any], loop: bool = False) -> CueList:
    return parsed({"loop": loop, "cue": list(rows)}, TABLE)


class Stage:
    """What is sent to the engine is seen `latency_ms` later."""

    def __init__(self, *rows: Mapping[str, Any], loop: bool = False, latency_ms: float = 0.0) -> None:
        self.latency_ms = latency_ms
        self.now_ns = START_NS
        self.errors: list[tuple[str, str]] = []
        self.looks: dict[int, dict[str, Any]] = {}
        self.seen: list[tuple[float, str, Any]] = []
        """(position at which it is seen, name, value) of every write that a cue has made."""
        self.store = ControlStore(TABLE)
        self.clock = Clock(self.now_ns)
        report = lambda *error: self.errors.append(error)  # noqa: E731
        now = lambda: self.now_ns  # noqa: E731
        self.changes = Changes(self.store, lambda: self.clock.tempo, self.lead_ms, report, now)
        held = lambda number: self.looks.get(number, {})  # noqa: E731
        self.runner = CueRunner(self.store, lambda: self.clock.tempo, self.changes, self.look, held, report, now)
        self.store.hold_with(self.changes.hold)
        self.store.listen(self.changes.note_write)
        self.store.listen(self._note)
        self.runner.use(listed(*rows, loop=loop))

    def lead_ms(self, name: str) -> float:
        return 8.0 if self.latency_ms and name == "mix" else self.latency_ms

    def look(self, number: int) -> Mapping[str, Any]:
        if number not in self.looks:
            raise ControlError(f"{PREFIX}/snapshot/recall", f"Nothing is stored under {number}.")
        return self.looks[number]

    def _note(self, name: str, value: Any, origin: Origin) -> None:
        self.runner.note_write(name, origin)
        if origin.name == "cue":
            at = self.clock.tempo.beat_at(self.now_ns + self.lead_ms(name) * MS)
            self.seen.append((at, name, value))

    def run(self, ms: float) -> None:
        """Let time pass."""
        for _ in range(round(ms / STEP_MS)):
            self.now_ns += STEP_MS * MS
            self.changes.apply(self.now_ns)
            self.runner.tick()

    def until(self, beat: float) -> None:
        """Let time pass until this position."""
        while self.beat < beat - 1e-9:
            self.run(STEP_MS)

    @property
    def beat(self) -> float:
        return self.clock.tempo.beat_at(self.now_ns)

    def value(self, name: str) -> Any:
        return self.store.snapshot.value(name)

    def hand(self, name: str, value: Any) -> None:
        self.store.set(name, value, HAND)

    def begun(self, name: str) -> list[float]:
        """The positions at which cues have set this control."""
        return [at for at, other, _ in self.seen if other == name]
