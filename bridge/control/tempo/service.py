"""`TempoService`: the beat and the changes that wait for it, joined to the live controls, telemetry, MIDI and Link.

Its thread makes the changes whose time has come, reads Ableton Link, notices silent sources and writes the telemetry.
Messages reach the clock on the threads that receive them, so that their times are right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from bridge.control.midi.switch import SWITCH_ON
from bridge.control.origin import Origin, Trust
from bridge.control.store import Caller, ControlStore
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.ableton_link import AbletonLink, LinkError, open_library
from bridge.control.tempo.changes import Changes
from bridge.control.tempo.clock import Clock
from bridge.control.tempo.controls import (
    BEAT,
    CANCEL,
    DOUBLE,
    EARLIER,
    HALVE,
    INTERNAL_SOURCE,
    LATER,
    LINK,
    MIDI,
    NUDGE,
    OSC,
    PHASE,
    RESYNC,
    ROUND,
    TAP,
    TAP_BEAT,
    TempoControls,
)
from bridge.control.tempo.midi_port import PortChoice
from bridge.control.tempo.state import State, Tempo, clamped
from bridge.service import Service
from engine.control import PREFIX
from engine.errors import ControlError

PERIOD_S = 0.02
"""Longest time between two looks at what waits and at Ableton Link."""

TELL_NS = 50_000_000
"""Time between two updates of the telemetry."""

FOLLOW_NS = 250_000_000
"""Shortest time between two writes of the control `tempo_bpm` after its source."""

SHOWN_DIGITS = 1
NUDGE_MS = 10.0

ORIGIN = Origin("tempo", Trust.OPERATOR)
"""Origin of every write that the beat makes itself."""

NAMES = {MIDI: "The MIDI clock", OSC: "The beat over OSC", LINK: "Ableton Link"}


class TempoService:
    """The beat of a running bridge. `start` and `stop` are idempotent.

    Args:
        store: the live controls.
        telemetry: receives the readings and the errors.
        lead_ms: how long a change of the control of this name takes to be seen, in ms.
        library: returns the module `link`; raises `LinkError` if there is none.
        clock: the time in ns.

    Attributes:
        clock: the beat.
        changes: what waits for it.
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        lead_ms: Callable[[str], float] = lambda name: 0.0,
        library: Callable[[], Any] = open_library,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._now = clock
        self._library = library
        self._wake = threading.Event()
        self.clock = Clock(clock(), self._controls.tempo_bpm)
        self.changes = Changes(store, lambda: self.clock.tempo, lead_ms, telemetry.error, clock, self._wake.set)
        self._port = PortChoice()
        self._link: AbletonLink | None = None
        self._link_wanted, self._link_failed = False, ""
        self._said = State.RUNNING
        self._hinted = False
        self._midi_asked = False
        self._tell_ns = self._follow_ns = 0
        self._service = Service("tempo", self._run, telemetry.error, self._wake.set)
        self._undo: list[Callable[[], None]] = []

    @property
    def _controls(self) -> TempoControls:
        return self._store.snapshot.of(TempoControls)

    @property
    def tempo(self) -> Tempo:
        """The beat in force."""
        return self.clock.tempo

    def start(self) -> TempoService:
        """Obey the controls and commands of the beat, and start its thread."""
        if self._undo:
            return self
        store, clock = self._store, self.clock
        self._make_link()  # long before it is enabled
        for name in ("tempo_source", "tempo_quantum", "tempo_bend"):
            self._obey(name, getattr(self._controls, name), ORIGIN)
        handlers: dict[str, Callable[[tuple[Any, ...], int], object]] = {
            TAP_BEAT.name: lambda args, ns: self._tap(ns),
            RESYNC.name: lambda args, ns: clock.resync(ns),
            DOUBLE.name: lambda args, ns: clock.scale(2.0, ns),
            HALVE.name: lambda args, ns: clock.scale(0.5, ns),
            ROUND.name: lambda args, ns: self._set_bpm(clock.rounded(), ns),
            NUDGE.name: lambda args, ns: clock.nudge(args[0], ns),
            EARLIER.name: lambda args, ns: clock.nudge(-NUDGE_MS, ns),
            LATER.name: lambda args, ns: clock.nudge(NUDGE_MS, ns),
            BEAT.name: lambda args, ns: self._hint(clock.osc_beat(args[0], ns)),
            PHASE.name: lambda args, ns: self._hint(clock.osc_phase(args[0], ns)),
            CANCEL.name: lambda args, ns: self.changes.cancel(),
        }
        self._undo = [store.on(name, self._handler(handler)) for name, handler in handlers.items()]
        self._undo += [
            store.listen(self._obey),
            store.listen(self.changes.note_write),
            store.restrict("tempo_bpm", self._check_bpm),
            store.hold_with(self.changes.hold),
        ]
        self._service.start()
        return self

    def stop(self) -> None:
        """End the thread, leave a session of Ableton Link, and obey nothing more."""
        for undo in self._undo:
            undo()
        self._undo = []
        self._service.stop()
        if self._link is not None:
            self._link.enable(False, 0.0, self._now())

    # MIDI: called on the thread of the port

    def wants_midi(self, name: str) -> bool:
        """Whether the port of this name is to be opened for its clock, even if it belongs to no controller."""
        wanted = self._controls.tempo_midi_port
        return self._controls.tempo_source == MIDI and bool(wanted) and wanted.lower() in name.lower()

    def midi(self, port: str, message: str, value: int, ns: int) -> None:
        """Take a message of MIDI clock.

        Args:
            port: name of the port.
            message: one of `bridge.control.tempo.midi_clock.MESSAGES`.
            value: of a song position.
            ns: when it arrived.
        """
        if self._controls.tempo_source != MIDI:
            return
        if not self._port.hears(port, self._controls.tempo_midi_port, ns):
            return
        if self._port.changed:
            self.clock.midi_from_another_port()
        self.clock.midi(message, value, ns)

    # Controls and commands: on the thread of whoever sends them

    def _handler(self, handler: Callable[[tuple[Any, ...], int], object]) -> Callable[[tuple[Any, ...], Caller], None]:
        def handle(args: tuple[Any, ...], caller: Caller) -> None:
            handler(args, self._now())
            self._match_source()
            self._wake.set()

        return handle

    def _obey(self, name: str, value: Any, origin: Origin) -> None:
        ns = self._now()
        if name == "tempo_source":
            self.clock.choose(value, ns)
            self._hinted = self._midi_asked = False
            self._link_failed = ""
            self._wake.set()
        elif name == "tempo_quantum":
            self.clock.set_quantum(value, ns)
        elif name == "tempo_bend":
            self.clock.bend(value, ns)
        elif name == "tempo_bpm" and origin != ORIGIN:
            self._set_bpm(value, ns)
            if self.clock.tempo.source == TAP:
                self.clock.choose(INTERNAL_SOURCE, ns)
                self._match_source()
        elif name in ("snap", "snap_trim"):
            self._wake.set()

    def _check_bpm(self, value: Any, origin: Origin) -> Any:
        tempo = self.clock.tempo
        if tempo.source == MIDI and tempo.state in (State.RUNNING, State.STOPPED) and origin != ORIGIN:
            raise ControlError(
                f"{PREFIX}/tempo/bpm", "The tempo follows MIDI clock.", f"Set {PREFIX}/tempo/source to internal first."
            )
        return value

    def _set_bpm(self, bpm: float, ns: int) -> None:
        """Set the tempo, as a person has asked: with Ableton Link that of the session."""
        if self.clock.tempo.source == LINK and self._link is not None and self._link.enabled:
            self._link.set_bpm(bpm)
        else:
            self.clock.set_bpm(bpm, ns)

    def _tap(self, ns: int) -> None:
        bpm = self.clock.tap(ns)
        if bpm is not None and self.clock.tempo.source == LINK:
            self._set_bpm(bpm, ns)

    def _hint(self, followed: bool) -> None:
        """Say once that beats come by OSC which nobody follows."""
        if not followed and not self._hinted:
            self._hinted = True
            source = self.clock.tempo.source
            self._telemetry.error(
                "tempo",
                f"Beats come by OSC, and the source of the beat is {source}: they are ignored. "
                f"Set {PREFIX}/tempo/source to osc to follow them.",
            )

    def _match_source(self) -> None:
        """Let the control tell the source: taps take over from a source that is silent."""
        source = self.clock.tempo.source
        if self._controls.tempo_source != source:
            self._store.set("tempo_source", source, ORIGIN)

    # The thread

    def _run(self) -> None:
        while not self._service.stopping.is_set():
            self._wake.clear()
            ns = self._now()
            self._read_link(ns)
            self._say(self.clock.check(ns))
            due_ns = self.changes.apply(ns)
            self._ask_midi()
            if ns >= self._tell_ns:
                self._tell_ns = ns + TELL_NS
                self._tell(ns)
            if ns >= self._follow_ns:
                self._follow_ns = ns + FOLLOW_NS
                self._follow_bpm()
            wait_s = PERIOD_S if due_ns is None else min(PERIOD_S, (due_ns - self._now()) / 1e9)
            if wait_s > 0.0:
                self._wake.wait(wait_s)

    def _make_link(self) -> None:
        if self._link is None:
            try:
                self._link = AbletonLink(self._library(), self._controls.tempo_bpm, self._now)
            except LinkError as error:
                self._link_failed = str(error)

    def _read_link(self, ns: int) -> None:
        """Join or leave the session, and follow it."""
        wanted = self.clock.tempo.source == LINK
        if self._link is None:
            if wanted and not self._link_wanted:
                self._make_link()
                if self._link_failed:
                    self._telemetry.error("tempo", self._link_failed)
            self._link_wanted = wanted
            return
        self._link_wanted = wanted
        if self._link.enable(wanted, self.clock.tempo.shown_bpm, ns) and wanted:
            line, peers = self._link.read(self.clock.tempo.quantum)
            self.clock.link(line, peers, self._now())

    def _ask_midi(self) -> None:
        """Have MIDI switched on for its clock."""
        if self._controls.tempo_source == MIDI and not self._midi_asked:
            self._midi_asked = True
            self._store.handle(PREFIX + SWITCH_ON.address, (), ORIGIN)

    def _say(self, state: State) -> None:
        """Say that a source is lost, and that it is back."""
        said, self._said = self._said, state
        tempo = self.clock.tempo
        name = NAMES.get(tempo.source, tempo.source)
        if state is State.LOST and said is not State.LOST:
            bpm = round(tempo.shown_bpm, SHOWN_DIGITS)
            self._telemetry.error("tempo", f"{name} is silent; the beat goes on at {bpm:g} beats per minute.")

    def _tell(self, ns: int) -> None:
        tempo, pending = self.clock.tempo, self.changes.pending
        beat = tempo.beat_at(ns)
        self._telemetry.update(
            tempo=round(tempo.shown_bpm, SHOWN_DIGITS),
            beat=round(beat, 2),
            bar=round(tempo.bar_at(ns), 3) % 1.0,
            tempo_source=tempo.source,
            tempo_state=str(tempo.state),
            tempo_peers=tempo.peers,
            snap_pending=", ".join(change.what for change in pending),
            snap_beats=round(max(0.0, pending[0].beat - beat), 2) if pending else 0.0,
            snap_lookahead=round(self.changes.lead_ns("steps") / 1e6, 1),
        )

    def _follow_bpm(self) -> None:
        """Let the control of the tempo tell the tempo in force, so that faders and pages do."""
        tempo = self.clock.tempo
        bpm = clamped(round(tempo.shown_bpm, SHOWN_DIGITS))
        if abs(self._controls.tempo_bpm - tempo.shown_bpm) > 0.5 * 10.0**-SHOWN_DIGITS:
            self._store.set("tempo_bpm", bpm, ORIGIN)
