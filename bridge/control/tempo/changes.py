"""Changes that wait for the beat: prompts, steps and snapshots when `snap` is on, and cues.

A change is sent so much before its moment that it is seen at the moment: by the measured latency of whoever obeys it,
plus a trim. Nothing is computed in advance but the position at which it is to be seen; `apply` compares it with the
beat in force, so a tempo that changes meanwhile moves the change with it. If it then comes too soon to be met, or the
latency has grown, the change waits for the next moment.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.control.origin import Origin, Trust
from bridge.control.store import ControlStore
from bridge.control.stored.later import AT_SNAP, Apply, Place
from bridge.control.tempo.controls import SNAPS, TempoControls
from bridge.control.tempo.state import Pending, Tempo
from engine.errors import TidecastError

log = logging.getLogger(__name__)

_LONG_AGO = 1e6  # beats

LATE_NS = 60_000_000
"""A command that is to land at a moment of `snap` may be seen this much later, before it waits for the next moment."""
MISSED_NS = 5_000_000
"""A moment is missed if a change for it was due so long before the last look, at which it was not due."""


@dataclass(slots=True)
class _Change:
    """One change: of a single control (`apply` is None), or of several by a command."""

    what: str
    value: Any
    names: frozenset[str]
    origin: Origin
    apply: Apply | None
    place: Place = AT_SNAP
    beat: float = 0.0
    begun: bool = False
    due: frozenset[str] = field(default=frozenset())


class Changes:
    """The changes that wait. Thread-safe. There is one of each control and of each command at most.

    Args:
        store: the live controls.
        tempo: the beat in force.
        lead_ms: how long a change of the control of this name takes to be seen, in ms.
        report: called with (topic, reason) when a change could not be made after all.
        clock: the time in ns.
        wake: called when there is something new to wait for.
    """

    def __init__(
        self,
        store: ControlStore,
        tempo: Callable[[], Tempo],
        lead_ms: Callable[[str], float],
        report: Callable[[str, str], None],
        clock: Callable[[], int],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._tempo = tempo
        self._lead_ms = lead_ms
        self._report = report
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()
        self._changes: list[_Change] = []
        self._basis: tuple[str, int] = ("off", 0)  # by what the moments were chosen
        self._making = 0  # the thread that makes changes now
        self._looked_ns = 0  # the last `apply` with changes
        self.pending: tuple[Pending, ...] = ()
        """What waits, the first first; replaced as a whole."""

    def hold(self, values: Mapping[str, Any], origin: Origin) -> Mapping[str, Any]:
        """Keep what has to wait; returns the values to set now.

        A message that sets a control that snaps waits as a whole. What Tidecast itself sets never waits.
        """
        by_name = self._store.table.by_name
        if origin.trust is Trust.OPERATOR or not any(by_name[name].snaps for name in values):
            return values
        now_in_force = self._store.snapshot
        with self._lock:
            tempo = self._tempo()
            if not self._beats(tempo):
                self._forget(values)
                return values
            self._retarget(tempo, self._clock())
            beat = self._moment(tempo, values, AT_SNAP, self._clock())
            self._forget(values)
            recalled = {name for change in self._changes if change.apply is not None for name in change.names}
            for name, value in values.items():
                if value != now_in_force.value(name) or name in recalled:  # else it only takes back what waits
                    self._changes.append(_Change(name, value, frozenset((name,)), origin, None, beat=beat))
            self._tell()
        self._wake()
        return {}

    def later(
        self,
        what: str,
        value: Any,
        names: Collection[str],
        origin: Origin,
        apply: Apply,
        place: Place = AT_SNAP,
    ) -> bool:
        """Keep a command that sets several controls, in place of the last one of the same name.

        Args:
            what: the command's name.
            value: its argument, for people.
            names: the controls that it sets.
            origin: who sent it.
            apply: sets them, or some of them: those whose change is seen sooner are set later.
            place: where it lands.

        Returns:
            Whether it waits; if not, it is to be carried out now.
        """
        with self._lock:
            tempo = self._tempo()
            waits = bool(names) and self._waits(tempo, place)
            # While this one waits, the other half of the last one may still land.
            self._changes = [change for change in self._changes if change.what != what or (waits and change.begun)]
            self._forget(names)
            self._tell()
            if not waits:
                return False
            self._retarget(tempo, self._clock())
            beat = self._moment(tempo, names, place, self._clock())
            self._changes.append(_Change(what, value, frozenset(names), origin, apply, place, beat))
            self._tell()
        self._wake()
        return True

    def take_back(self, what: str) -> None:
        """Take back the command of this name, if it has not begun to land."""
        with self._lock:
            self._changes = [change for change in self._changes if change.what != what or change.begun]
            self._tell()

    def note_write(self, name: str, value: Any, origin: Origin) -> None:
        """Somebody has set a control by hand: what waits for it is dropped. A listener of the store."""
        own = threading.get_ident() == self._making
        if self._changes and origin.trust is not Trust.OPERATOR and not own:
            with self._lock:
                self._forget((name,))

    def cancel(self) -> None:
        """Take back everything that waits. Whoever shows the controls is told of the values in force."""
        with self._lock:
            names = [change.what for change in self._changes if change.apply is None]
            self._changes = []
            self._tell()
        self._store.retell(names)

    def apply(self, ns: int) -> float | None:
        """Make the changes whose time has come; to be called often.

        Returns:
            When the next one is due, at the tempo in force; None if none waits.
        """
        with self._lock:
            if not self._changes:
                return None
            tempo = self._tempo()
            self._retarget(tempo, ns)
            self._put_off(tempo, ns)
            next_ns = self._collect(tempo, ns)
            due = [change for change in self._changes if change.due]
            batches = self._batches(due)
            for change in due:
                change.names, change.begun, change.due = change.names - change.due, True, frozenset()
            self._changes = [change for change in self._changes if change.names]
            if due:
                self._tell()
        for what, make in batches:
            self._make(what, make)
        return next_ns

    def lead_ns(self, name: str) -> float:
        """How long before it is to be seen a change of this control is sent."""
        trim = self._store.snapshot.of(TempoControls).snap_trim
        return (self._lead_ms(name) + trim) * 1e6

    def _beats(self, tempo: Tempo, place: Place = AT_SNAP) -> float:
        """Beats between the moments that changes wait for; 0 if they do not wait. While the beat stands still there is
        nothing to wait for: a look is prepared between two songs."""
        bars = SNAPS[place.snap or self._store.snapshot.of(TempoControls).snap]
        return 0.0 if not tempo.moving else 1.0 if bars < 0.0 else bars * tempo.quantum

    def _waits(self, tempo: Tempo, place: Place) -> bool:
        return tempo.moving and (place.earliest is not None or bool(self._beats(tempo, place)))

    def _moment(self, tempo: Tempo, names: Collection[str], place: Place, ns: float) -> float:
        """Position of the first moment at which a change of all of these can still be seen."""
        beats, reached = self._beats(tempo, place), ns + max(self.lead_ns(name) for name in names)
        if place.earliest is None:
            return tempo.next_boundary(reached, beats)
        if not beats:
            return place.earliest
        return tempo.next_boundary(max(reached - LATE_NS, tempo.ns_at(place.earliest)), beats)

    def _forget(self, names: Collection[str]) -> None:
        kept = [change for change in self._changes if change.apply is not None or change.what not in names]
        if len(kept) != len(self._changes):
            self._changes = kept
            self._tell()

    def _tell(self) -> None:
        rows = sorted(self._changes, key=lambda change: change.beat)
        self.pending = tuple(Pending(change.what, change.value, change.beat) for change in rows)

    def _retarget(self, tempo: Tempo, ns: int) -> None:
        """Choose other moments when `snap` or the count of beats has changed."""
        basis = (self._store.snapshot.of(TempoControls).snap, tempo.jumps)
        if basis == self._basis:
            return
        jumped, self._basis = basis[1] != self._basis[1], basis
        for change in self._changes:
            if change.begun:  # its other half is on its way: not torn apart by a bar
                change.beat = tempo.beat_at(ns) - _LONG_AGO
            elif self._waits(tempo, change.place):
                if jumped and change.place.earliest is not None:  # another count of beats: as soon as it can be seen
                    lead = max(self.lead_ns(name) for name in change.names)
                    change.place = replace(change.place, earliest=tempo.beat_at(ns + lead))
                change.beat = self._moment(tempo, change.names, change.place, ns)
        self._tell()

    def _put_off(self, tempo: Tempo, ns: int) -> None:
        """Choose the next moment for what can no longer be seen at its own: the tempo or the latency has grown."""
        looked, self._looked_ns = self._looked_ns, ns
        for change in self._changes if tempo.moving else ():
            if change.begun or not self._beats(tempo, change.place):
                continue
            lead = max(self.lead_ns(name) for name in change.names)
            if tempo.ns_at(change.beat) - lead < looked - MISSED_NS:
                change.beat = self._moment(tempo, change.names, change.place, ns)
                self._tell()

    def _collect(self, tempo: Tempo, ns: int) -> float | None:
        """Note what is due in each change; returns when the next is."""
        next_ns = None
        for change in self._changes:
            if change.place.earliest is not None and not (tempo.moving or change.begun):
                continue  # it stands still with the beat
            if not self._waits(tempo, change.place):
                change.due, change.beat = change.names, tempo.beat_at(ns)
                continue
            moment = tempo.ns_at(change.beat)
            times = {name: moment - self.lead_ns(name) for name in change.names}
            change.due = frozenset(name for name, at in times.items() if at <= ns)
            left = [at for at in times.values() if at > ns]
            next_ns = min([*left, *([] if next_ns is None else [next_ns])], default=None)
        return next_ns

    def _batches(self, due: Collection[_Change]) -> list[tuple[str, Callable[[], object]]]:
        """What to do, in the order in which it was asked for; neighbours of one sender are set in one swap."""
        found: list[tuple[str, Callable[[], object]]] = []
        values: dict[str, Any] = {}
        sender: Origin | None = None

        def close() -> None:
            if values and sender is not None:
                found.append((", ".join(values), _setting(self._store, dict(values), sender)))
                values.clear()

        for change in due:
            if change.apply is not None:
                close()
                found.append((change.what, _calling(change.apply, change.due, not change.begun, change.beat)))
                continue
            if sender != change.origin:
                close()
                sender = change.origin
            values[change.what] = change.value
        close()
        return found

    def _make(self, what: str, make: Callable[[], object]) -> None:
        self._making = threading.get_ident()
        try:
            make()
        except TidecastError as error:
            self._report("snap", f"{what}: {error}")
        except Exception as error:  # one change that fails must not keep the others
            log.exception("a change that waited for the beat failed")
            self._report("snap", f"{what} could not be changed: {type(error).__name__}: {error}")
        finally:
            self._making = 0


def _setting(store: ControlStore, values: Mapping[str, Any], origin: Origin) -> Callable[[], object]:
    return lambda: store.set_now(values, origin)


def _calling(apply: Apply, names: Collection[str], first: bool, beat: float) -> Callable[[], object]:
    return lambda: apply(names, first, beat)
