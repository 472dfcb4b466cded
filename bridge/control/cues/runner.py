"""`CueRunner`: plays a cue list in time. Thread-safe; the time is an argument, so that a test needs none.

A cue that is to begin at a position of the beat is handed to `Changes` a little before its values have to be sent, so
that it is seen at the position. The wait of the next one is counted from the position, not from when it was sent: a
list that is played twice sets the same values at the same beats.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from bridge.control.cues.controls import BACK, GO_ON, JUMP, State
from bridge.control.cues.cue_list import EMPTY, Cue, CueList
from bridge.control.cues.elapsed import Elapsed
from bridge.control.cues.lengths import Unit
from bridge.control.cues.progress import Armed, Begun, Gliding, View
from bridge.control.origin import Origin, Trust
from bridge.control.store import ControlStore
from bridge.control.stored.glide import GLIDE_HZ, Motion
from bridge.control.stored.later import Place
from bridge.control.tempo.changes import Changes
from bridge.control.tempo.state import Tempo
from engine.coercion import shown
from engine.control import PREFIX
from engine.errors import ControlError, TidecastError

ORIGIN = Origin("cue", Trust.OPERATOR)
"""Origin of every write that a cue makes: the list is the user's own."""

WHAT = GO_ON.name
"""What a cue that waits for the beat is called among the changes that wait."""

EARLY_NS = 100_000_000
"""A cue is handed over this much before its first value has to be sent."""

LONGEST_LEAD_NS = 5_000_000_000
"""Before this, nobody asks how early a cue has to be sent."""

IDLE_S = 0.1


class CueRunner:
    """The place in the list, what waits and what glides.

    Args:
        store: the live controls.
        tempo: the beat in force.
        changes: what waits for the beat.
        look: the values of a snapshot by its number; raises `ControlError` without one.
        held: what a snapshot holds, by its number; nothing without one. Only its keys are read.
        report: called with (topic, reason) when a cue cannot do all that it says.
        clock: the time in ns.
        wake: called when there is something new to wait for.
    """

    def __init__(
        self,
        store: ControlStore,
        tempo: Callable[[], Tempo],
        changes: Changes,
        look: Callable[[int], Mapping[str, Any]],
        held: Callable[[int], Mapping[str, Any]],
        report: Callable[[str, str], None],
        clock: Callable[[], int],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._tempo = tempo
        self._changes = changes
        self._look = look
        self._held = held
        self._report = report
        self._clock = clock
        self._wake = wake
        self._lock = threading.RLock()
        self._cues: CueList = EMPTY
        self._at = -1
        self._laps: dict[int, int] = {}  # how often the cue at this place has looped
        self._elapsed = Elapsed(clock(), tempo())
        self._begun: Begun | None = None  # None: nothing begins by itself
        self._armed: Armed | None = None
        self._armed_count = 0
        self._cut = 0  # of the cues that were armed before this one, nothing lands any more
        self._gliding: Mapping[str, Gliding] = {}

    @property
    def cues(self) -> CueList:
        """The list."""
        return self._cues

    # The list

    def use(self, cues: CueList, places: Sequence[int | None] | None = None) -> None:
        """Take another version of the list; the present cue and the one that waits stay the same if they are in it.

        Args:
            cues: the list.
            places: the new place of each cue, None for one that is gone; without them, cues are found by their names.
        """
        with self._lock:
            old, before, armed = self._cues.cue, self._at, self._armed

            def now_at(at: int) -> int | None:
                return places[at] if places is not None else cues.find_again(old[at], at)

            self._disarm()
            self._cues, self._laps = cues, {}
            if before >= 0:
                found = now_at(before)
                if found is None:  # the one that came after it is the next one
                    earlier = [at for at in map(now_at, range(before)) if at is not None]
                    self._begun = None
                self._at = found if found is not None else max(earlier, default=-1)
            if armed is not None and armed.by_hand and (found := now_at(armed.at)) is not None:
                self._arm(found, by_hand=True)
        self._wake()

    def take_place(self, at: int) -> None:
        """Make the cue at this place the present one, without beginning it; the next one waits for GO."""
        with self._lock:
            self._disarm()
            self._at, self._begun = at, None

    # What people do

    def go(self) -> None:
        """Begin the next cue at the next moment of snap; one that waits for it because of GO begins at once.

        Raises:
            ControlError: if there is none.
        """
        with self._lock:
            armed = self._armed
            if armed is not None and armed.by_hand:
                self._changes.take_back(WHAT)
                self._cut = armed.number
                armed.apply(armed.values, True, self._tempo().beat_at(self._clock()))
                return
            found = self._next()
            if found is None:
                reason = "The list is at its end." if self._cues.cue else "The cue list is empty."
                raise ControlError(PREFIX + GO_ON.address, reason, f"Send {PREFIX}{JUMP.address} or add a cue.")
            self._by_hand(found)

    def back(self) -> None:
        """Begin the cue before the present one.

        Raises:
            ControlError: if there is none.
        """
        with self._lock:
            if self._at <= 0:
                raise ControlError(PREFIX + BACK.address, "There is no cue before this one.")
            self._by_hand(self._at - 1)

    def jump(self, target: Any) -> None:
        """Begin the cue of this name or number.

        Raises:
            ControlError: if there is none.
        """
        with self._lock:
            found = self._cues.index(target)
            if found is None:
                reason = f"There is no cue {shown(target)}; the list has {len(self._cues.cue)}."
                raise ControlError(PREFIX + JUMP.address, reason)
            self._laps = {}
            self._by_hand(found)

    def stop(self) -> None:
        """Let nothing begin by itself until GO, and leave what glides where it is."""
        with self._lock:
            self._disarm()
            self._elapsed.go_on(self._clock())
            self._begun, self._gliding = None, {}

    def pause(self) -> None:
        """Let waits and glides stand still, or go on. A cue that waits for the beat because of GO is taken back."""
        with self._lock:
            ns = self._follow()
            if self._elapsed.held:
                self._elapsed.go_on(ns)
            else:
                self._disarm()
                self._elapsed.hold(ns)
        self._wake()

    def taken_back(self) -> None:
        """Everything that waits for the beat was taken back: the next cue waits for GO."""
        with self._lock:
            if self._armed is not None:
                self._armed, self._begun = None, None

    def note_write(self, name: str, origin: Origin) -> None:
        """Somebody has set a control: it glides no longer, unless a cue has set it."""
        if origin != ORIGIN and name in self._gliding:
            with self._lock:
                self._gliding = {n: row for n, row in self._gliding.items() if n != name}

    # In time

    def tick(self) -> float:
        """Do what is due now. Returns after how many seconds it is to be called again, at the latest."""
        with self._lock:
            ns = self._follow()
            self._glide(ns)
            at_ns, position = self._due()
            if at_ns is not None and self._armed is None and ns >= at_ns - LONGEST_LEAD_NS:
                found = self._next()
                if found is None:
                    self._begun = None
                else:
                    early = self._early(found) if position is not None else 0.0
                    if ns >= at_ns - early:
                        self._arm(found, by_hand=False, position=position)
                    at_ns -= early
            if self._gliding:
                return 1.0 / GLIDE_HZ
            return IDLE_S if at_ns is None else min(IDLE_S, max(1.0 / GLIDE_HZ, (at_ns - ns) / 1e9))

    def view(self) -> View:
        """What is told of the list now."""
        with self._lock:
            ns, cues = self._follow(), self._cues.cue
            if not cues:
                return View(State.EMPTY)
            armed, begun, after = self._armed, self._begun, self._next()
            state, remaining, unit = State.GO if after is not None else State.END, 0.0, ""
            present = cues[self._at] if self._at >= 0 else None
            holds = present.holds if present is not None and begun is not None else None
            if holds is not None and begun is not None and after is not None:
                unit = str(Unit.SECONDS if holds.unit is Unit.SECONDS else Unit.BEATS)
                remaining, state = self._end(begun) - self._elapsed.at(holds.unit, ns), State.WAIT
            if armed is not None:
                after = armed.at
                if armed.by_hand:
                    landing = next((row.beat for row in self._changes.pending if row.what == WHAT), None)
                    remaining = 0.0 if landing is None else landing - self._tempo().beat_at(ns)
                    state, unit = State.BEAT, str(Unit.BEATS)
            if self._elapsed.held:
                state = State.PAUSED
            return View(
                state,
                self._at + 1,
                present.name if present is not None else "",
                0 if after is None else after + 1,
                "" if after is None else cues[after].name,
                max(0.0, remaining),
                unit,
                len(cues),
            )

    # Within; called with the lock held

    def _follow(self) -> int:
        ns = self._clock()
        self._elapsed.follow(ns, self._tempo())
        return ns

    def _next(self) -> int | None:
        """The place of the cue that comes after the present one; None if there is none."""
        cues = self._cues.cue
        if not cues:
            return None
        present = cues[self._at] if self._at >= 0 else None
        if present is not None and present.loop and not 0 < present.times <= self._laps.get(self._at, 0):
            return self._cues.index_of_name(present.loop)
        if self._at + 1 < len(cues):
            return self._at + 1
        return 0 if self._cues.loop else None

    def _end(self, begun: Begun) -> float:
        """When the present cue's wait ends, in seconds or beats that have passed."""
        holds = self._cues.cue[self._at].holds
        assert holds is not None
        if holds.unit is Unit.SECONDS:
            return begun.seconds + holds.amount
        return begun.beats + holds.in_units(self._tempo().quantum)

    def _due(self) -> tuple[float | None, float | None]:
        """When the next cue begins by itself, and at which position of the beat; None for what is not known."""
        begun, holds = self._begun, self._cues.cue[self._at].holds if self._at >= 0 else None
        if begun is None or holds is None:
            return None, None
        end = self._end(begun)
        return self._elapsed.ns_at(holds.unit, end), self._elapsed.position(holds.unit, end)

    def _early(self, at: int) -> float:
        """How long before its moment a cue is handed over, in ns."""
        cue, table = self._cues.cue[at], self._store.table
        names = cue.own_values(table).keys() | (self._held(cue.snapshot).keys() if cue.snapshot is not None else set())
        return max((self._changes.lead_ns(name) for name in names if name in table.by_name), default=0.0) + EARLY_NS

    def _by_hand(self, at: int) -> None:
        self._elapsed.go_on(self._follow())
        self._disarm()
        self._arm(at, by_hand=True)

    def _disarm(self) -> None:
        self._armed = None
        self._changes.take_back(WHAT)

    def _arm(self, at: int, *, by_hand: bool, position: float | None = None) -> None:
        """Have a cue begin at its moment: at this position, else at the next moment of snap, else now."""
        cue, values = self._cues.cue[at], self._values(at)
        self._armed_count += 1
        number = self._armed_count
        begun: Begun | None = None

        def apply(names: Collection[str], first: bool, beat: float) -> None:
            nonlocal begun
            with self._lock:
                if first:
                    if self._armed is None or self._armed.number != number:
                        return  # taken back while it was on its way
                    begun = self._begin(at, beat)
                elif number < self._cut:
                    return
                self._set(cue, {name: values[name] for name in names}, begun)

        self._armed = Armed(number, at, by_hand, values, apply)
        if not self._changes.later(WHAT, cue.name or at + 1, values, ORIGIN, apply, Place(cue.snap, position)):
            self._cut = number
            apply(values, True, self._tempo().beat_at(self._clock()) if position is None else position)
        self._wake()

    def _values(self, at: int) -> dict[str, Any]:
        """What a cue sets. That its snapshot is missing is reported."""
        cue = self._cues.cue[at]
        found: dict[str, Any] = {}
        if cue.snapshot is not None:
            try:
                found = dict(self._look(cue.snapshot))
            except ControlError as error:
                self._report("cue", f"Cue {at + 1} {cue.name}: {error.message}")
        return found | cue.own_values(self._store.table)

    def _begin(self, at: int, beat: float) -> Begun:
        """A cue is the present one from now on; it is seen at this position of the beat."""
        ns, tempo = self._follow(), self._tempo()
        present = self._cues.cue[self._at] if self._at >= 0 else None
        if present is not None and present.loop:
            lap = self._laps.get(self._at, 0)
            goes_back = at == self._cues.index_of_name(present.loop) and not 0 < present.times <= lap
            self._laps = {**self._laps, self._at: lap + 1 if goes_back else 0}
        seconds = self._elapsed.seconds(tempo.ns_at(beat) if tempo.moving else ns)
        begun = Begun(seconds, self._elapsed.beats_at(beat))
        self._armed, self._at, self._begun = None, at, begun
        return begun

    def _set(self, cue: Cue, values: Mapping[str, Any], begun: Begun | None) -> None:
        """Set these values of a cue, or let them glide from its begin on."""
        now, table, glide = self._store.snapshot, self._store.table.by_name, cue.glide
        moving: dict[str, Gliding] = {}
        if glide is not None and glide.amount > 0.0 and begun is not None:
            amount = glide.in_units(self._tempo().quantum)
            start = begun.seconds if glide.unit is Unit.SECONDS else begun.beats
            for name, value in values.items():
                if table[name].glides and value != now.value(name):
                    motion = Motion(float(now.value(name)), float(value), start, amount)
                    moving[name] = Gliding(motion, glide.unit, self._changes.lead_ns(name))
        others = {name: row for name, row in self._gliding.items() if name not in values}
        self._gliding = {**others, **moving}
        self._write({name: value for name, value in values.items() if name not in moving})

    def _glide(self, ns: int) -> None:
        """Move what glides."""
        if not self._gliding or self._elapsed.held:
            return
        found, left = {}, {}
        for name, row in self._gliding.items():
            place = self._elapsed.at(row.unit, ns + row.lead_ns)
            found[name] = row.motion.value_at(place)
            if row.motion.share_at(place) < 1.0:
                left[name] = row
        self._gliding = left
        self._write(found)

    def _write(self, values: Mapping[str, Any]) -> None:
        """Set these values; one that is refused is reported and keeps no other."""
        try:
            self._store.set_now(values, ORIGIN)
        except TidecastError:
            for name, value in values.items():
                try:
                    self._store.set_now({name: value}, ORIGIN)
                except TidecastError as error:
                    self._report("cue", f"{name}: {error}")
