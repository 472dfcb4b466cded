"""`Modulation`: the modulators of a running bridge, joined to the live controls, the beat and the telemetry.

The store keeps the base values: what faders, snapshots, glides and cues have set. A modulator never writes. Whoever
makes pictures asks the store for the values of a moment (`ControlStore.modulated`), and these are the base values with
what the modulators add. Its thread only tells the modulated values, ten times a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from bridge.control.modulation.controls import (
    HEARD,
    RETRIGGER,
    RETRIGGER_ALL,
    SET,
    SLOTS,
    ModulationControls,
    reading_name,
    slot,
)
from bridge.control.modulation.modulator import KEYS, Modulator, checked, parse, resolved, target_of, wrong
from bridge.control.modulation.running import Running
from bridge.control.modulation.shapes import smooth
from bridge.control.origin import Origin, Trust
from bridge.control.signals import Signals
from bridge.control.store import Caller, ControlStore
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.state import Tempo
from bridge.control.values import Snapshot
from bridge.service import Service
from engine.coercion import shown
from engine.control import PREFIX
from engine.errors import ControlError

log = logging.getLogger(__name__)

TELL_S = 0.1
"""Time between two updates of the telemetry."""

MOST_TOLD = 64
"""Most names of signals that the telemetry tells."""

DIGITS = 4
"""Decimals of the modulated values that the telemetry tells."""


class Modulation:
    """The modulators. `start` and `stop` are idempotent; `modulated` may be called from any thread.

    Args:
        store: the live controls.
        telemetry: receives the modulated values and the errors.
        signals: what is heard from outside.
        tempo: returns the beat in force.
        lead_ns: how long after now a value of the control of this name that is asked for now is seen, in ns; see
            `bridge.control.tempo.changes.Changes.lead_ns`.
        clock: the time in ns.
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        signals: Signals,
        tempo: Callable[[], Tempo],
        lead_ns: Callable[[str], float] = lambda name: 0.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._signals = signals
        self._tempo = tempo
        self._lead_ns = lead_ns
        self._clock = clock
        self._changing = threading.Lock()
        self._texts: tuple[str, ...] = ("",) * SLOTS
        self._running: tuple[Running | None, ...] = (None,) * SLOTS
        self._moved: frozenset[str] = frozenset()  # the controls that modulators move
        self._bases: dict[str, Any] = {}  # their last base values, to know what a hand has changed
        self._touched: dict[str, int] = {}  # when a hand has moved them
        self._told: frozenset[str] = frozenset()
        self._heard: tuple[str, ...] = ()
        self._failed = ""
        self._service = Service("modulation", self._run, telemetry.error)
        self._undo: list[Callable[[], None]] = []

    def start(self) -> Modulation:
        """Obey the modulators and their commands, and begin to tell."""
        if self._undo:
            return self
        store = self._store
        self._undo = [store.restrict(slot(number), self._rule(number)) for number in range(1, SLOTS + 1)]
        self._undo += [
            store.on(SET.name, self._set),
            store.on(RETRIGGER.name, lambda args, caller: self.retrigger(args[0])),
            store.on(RETRIGGER_ALL.name, lambda args, caller: self._retrigger(range(1, SLOTS + 1))),
            store.listen(self._note_write),
            store.modulate_with(self.modulated),
        ]
        self._match()
        self._service.start()
        return self

    def stop(self) -> None:
        """Leave every control at its base value, and obey nothing more."""
        for undo in reversed(self._undo):
            undo()
        self._undo = []
        self._service.stop()

    @property
    def modulators(self) -> tuple[Modulator | None, ...]:
        """What each modulator does, the first first; None where there is none."""
        return tuple(None if running is None else running.modulator for running in self._running)

    def modulated(self, base: Snapshot, now_ns: int) -> Snapshot:
        """The values with which what is computed now is made.

        Args:
            base: the base values.
            now_ns: the time now.

        Returns:
            `base` itself if nothing differs. Never raises: after a defect the base values count, and it is reported.
        """
        if not self._moved:
            return base
        try:
            return base.replaced(self._values(base, now_ns))
        except Exception as error:  # pictures must go on
            self._report_defect(error)
            return base

    def retrigger(self, number: int) -> None:
        """Begin the cycle of a modulator now; 0 does nothing.

        Raises:
            ControlError: if there is no such modulator.
        """
        if number:
            self._running_at(number)
            self._retrigger((number,))

    def _values(self, base: Snapshot, now_ns: int) -> dict[str, float]:
        """The values of the controls that are moved, by name."""
        tempo, depth = self._tempo(), base.of(ModulationControls).mod_depth
        at_work = [running for running in self._running if running is not None]
        values: dict[str, float] = {}
        for running in at_work:
            name = running.control.name
            added = running.addition(now_ns, self._lead_ns(name), tempo)
            values[name] = values.get(name, base.value(name)) + added * depth * self._share(running, now_ns)
        for running in at_work:
            name = running.control.name
            values[name] = min(max(values[name], running.low), running.high)
        return values

    def _share(self, running: Running, now_ns: int) -> float:
        """How much of its depth a modulator has: all of it, unless a hand has moved the control lately."""
        touched = self._touched.get(running.control.name)
        if touched is None:
            return 1.0
        back_ns = running.modulator.back * 1e9
        return smooth((now_ns - touched) / back_ns) if back_ns else 1.0

    # Controls and commands: on the thread of whoever sends them

    def _rule(self, number: int) -> Callable[[Any, Origin], Any]:
        return lambda text, origin: resolved(text, number, self._store.table)

    def _note_write(self, name: str, value: Any, origin: Origin) -> None:
        if name in self._moved:
            base = self._store.snapshot.value(name)
            with self._changing:
                moved, self._bases[name] = self._bases.get(name) != base, base
                if moved and origin.trust is not Trust.OPERATOR:
                    self._touched[name] = self._clock()
        elif name.startswith("mod_"):
            self._match()

    def _match(self) -> None:
        """Let what runs match the texts in force."""
        snapshot = self._store.snapshot
        with self._changing:
            texts = snapshot.of(ModulationControls).texts()
            if texts == self._texts:
                return
            ns, running = self._clock(), list(self._running)
            for index, (text, before) in enumerate(zip(texts, self._texts, strict=True)):
                if text == before:
                    continue
                try:
                    running[index] = self._run_text(text, index + 1, running[index], ns)
                except ControlError as error:  # it was there before the rule
                    self._telemetry.error(error.address, str(error))
                    running[index] = None
            self._texts = texts
            self._running = tuple(running)
            moved = frozenset(r.control.name for r in running if r is not None)
            self._bases = {name: self._bases.get(name, snapshot.value(name)) for name in moved}
            self._touched = {name: at for name, at in self._touched.items() if name in moved}
            self._moved = moved
            self._signals.follow(name for r in running if r is not None for name in r.modulator.signals)

    def _run_text(self, text: str, number: int, before: Running | None, ns: int) -> Running | None:
        modulator = parse(text, number)
        if modulator is None:
            return None
        return Running(modulator, target_of(modulator, self._store.table, number), self._signals, ns, before)

    def _set(self, args: tuple[Any, ...], caller: Caller) -> None:
        """Change one key of a modulator: (number, key, value)."""
        if len(args) != 3 or not isinstance(args[0], (int, float)) or not isinstance(args[1], str):
            raise ControlError(PREFIX + SET.address, "The arguments are number, key, value.")
        number, key, value = int(args[0]), args[1].strip().lower(), args[2]
        modulator = self._running_at(number).modulator
        if key not in (*KEYS, "shape", "target"):
            raise wrong(number, f"there is no key {shown(key)}.", f"Keys are {', '.join(KEYS)}.")
        values = modulator.model_dump() | {key: value}
        if key in ("beats", "hz"):  # one of them counts
            values["hz" if key == "beats" else "beats"] = 0.0
        self._store.set(slot(number), checked(values, number).text(), caller.origin)

    def _running_at(self, number: int) -> Running:
        """The modulator of this number.

        Raises:
            ControlError: if there is none.
        """
        found = self._running[number - 1] if 1 <= number <= SLOTS else None
        if found is None:
            having = ", ".join(str(index + 1) for index, r in enumerate(self._running) if r is not None) or "none"
            raise wrong(number, f"there is none (there are: {having}).")
        return found

    def _retrigger(self, numbers: Iterable[int]) -> None:
        tempo, now_ns = self._tempo(), self._clock()
        for number in numbers:
            running = self._running[number - 1]
            if running is not None:
                running.retrigger(now_ns + self._lead_ns(running.control.name), tempo)

    def _report_defect(self, error: Exception) -> None:
        text = f"The modulators failed, and the faders count: {type(error).__name__}: {error}"
        if text != self._failed:
            self._failed = text
            log.error("the modulators failed", exc_info=error)
            self._telemetry.error("modulation", text)

    # The thread

    def _run(self) -> None:
        while not self._service.stopping.is_set():
            self._tell()
            self._service.stopping.wait(TELL_S)

    def _tell(self) -> None:
        """Tell the values of the controls that are modulated, or have been, and what is heard."""
        now = self.modulated(self._store.snapshot, self._clock())
        self._told |= frozenset(self._moved)
        self._telemetry.update(**{reading_name(name): round(now.value(name), DIGITS) for name in self._told})
        heard = self._signals.names()[:MOST_TOLD]
        if heard != self._heard:
            self._heard = heard
            self._telemetry.update(**{HEARD.name: " ".join(heard)})
