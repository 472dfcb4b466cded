"""MIDI controllers drive the live controls, with learning, soft takeover, feedback, and ports that come and go.

`MidiInput` looks for ports on a thread of its own, so that a controller that is plugged in later is found. It obeys
their messages and sends changes from elsewhere back to controllers with motors or lights. The ports are mido's, through
python-rtmidi, rtmidi2 (`rtmidi2_backend`) or any other mido backend.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.control.files import locked, remove_unfinished, signature
from bridge.control.midi.backend import send_control
from bridge.control.midi.bindings import (
    Binding,
    BindingsError,
    Knob,
    Takeover,
    choice,
    defaults,
    learned,
    load,
    press,
    resolve,
    save,
    scaled,
    stable_name,
    summary,
)
from bridge.control.midi.clock_listener import CLOCK_MESSAGES, ClockListener, NoClock
from bridge.control.origin import INTERNAL, Origin, Trust
from bridge.control.signals import MIDI, Signals
from bridge.control.store import Caller, ControlStore
from bridge.service import Service
from engine.control import PREFIX, Command, Control, Kind

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Time between two searches for ports."""

FEEDBACK_HZ = 30.0
LEARN_TRAVEL = 8
"""A knob is learned when it has moved this far (of 127), so that one that jitters is not learned by mistake."""

NOT_CONTROLLERS = ("Midi Through", "RtMidi")
"""Parts of the names of ports that belong to no controller."""

LEARN = Command(
    "midi_learn",
    "/midi/learn",
    (("address", "s", True),),
    "MIDI",
    "Learn",
    "Bind the next MIDI knob that moves to this control's address; an empty text stops waiting.",
)


class MidiInput:
    """Obeys every MIDI controller that is plugged in, now or later. `start` and `stop` are idempotent.

    Args:
        store: the live controls.
        path: the TOML file of bindings.
        report: called with (topic, reason) when something goes wrong; `Telemetry.error`.
        backend: a loaded mido backend; see `open_backend`.
        port: use only ports with this text in their names.
        look_s: time between two searches for ports, in s.
        clock: hears the MIDI clock; None for nobody.
        signals: receives the numbers of all controllers, for modulators; None for nobody.
    """

    def __init__(
        self,
        store: ControlStore,
        path: Path,
        report: Callable[[str, str], None],
        backend: Any,
        *,
        port: str = "",
        look_s: float = LOOK_S,
        clock: ClockListener | None = None,
        signals: Signals | None = None,
    ) -> None:
        self._store = store
        self._table = store.table
        self._path = path
        self._report = report
        self._backend = backend
        self._port = port
        self._look_s = look_s
        self._clock = clock or NoClock()
        self._signals = signals or Signals()
        self._bindings: tuple[Binding, ...] = ()
        self._seen: tuple[int, ...] = ()  # what the file looked like when it was last read
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._lock = threading.RLock()  # for everything below: the ports' threads use it
        self._takeovers: dict[tuple[Binding, str], Takeover] = {}
        self._positions: dict[Knob, int] = {}
        self._learn_starts: dict[Knob, int] = {}  # where each knob was when it first moved during learning
        self._learning = ""
        self._learner = Caller(INTERNAL)
        self._unsaved: list[tuple[Knob, str]] = []  # learned, and not in the file
        self._changed: set[str] = set()
        self._service = Service("midi", self._run, report)
        self._undo: list[Callable[[], None]] = []

    def start(self) -> MidiInput:
        """Read the bindings and start to look for ports. A damaged file is renamed and reported."""
        if self._undo:
            return self
        remove_unfinished(self._path)
        self._seen = signature(self._path)
        try:
            self._bindings = load(self._path, self._table)
        except BindingsError as error:
            self._bindings = defaults(self._table)
            self._report("midi", f"{error} The default bindings are used.")
        self._undo = [
            self._store.on(LEARN.name, lambda args, caller: self.learn(args[0], caller)),
            self._store.listen(self._note_change),
        ]
        self._service.start()
        return self

    def stop(self) -> None:
        """Close the ports."""
        self._service.stop()
        for undo in self._undo:
            undo()
        self._undo = []

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of the open ports."""
        return tuple(self._inputs)

    @property
    def learning(self) -> str:
        """The full OSC address that is waiting for a knob; empty for none."""
        return self._learning

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The bindings in use."""
        return self._bindings

    def use(self, bindings: tuple[Binding, ...]) -> None:
        """Use these bindings from now on, in place of what was learned and is not written. Writes nothing."""
        with self._lock:
            self._unsaved = []
        self._adopt(bindings)

    @property
    def knobs(self) -> dict[str, str]:
        """Descriptions of the knobs by the full OSC address that they are bound to."""
        return summary(self._bindings)

    def learn(self, address: str, caller: Caller | None = None) -> None:
        """Bind the next knob that moves to this address; an empty address stops waiting. The caller is answered at
        `/midi/learned` (address, description of the knob).

        Raises:
            ControlError: if nothing can be bound to the address.
        """
        full = resolve(address, self._table) if address else ""
        with self._lock:
            self._learning, self._learner, self._learn_starts = full, caller or Caller(INTERNAL), {}

    def _control(self, binding: Binding) -> Control | None:
        """The control that a binding moves; None for a command."""
        return self._table.targets[binding.address].control

    # Ports and feedback: on the service's thread

    def _run(self) -> None:
        look_every = max(1, round(self._look_s * FEEDBACK_HZ))
        turn = 0
        try:
            while not self._service.stopping.is_set():
                if turn % look_every == 0:
                    self._update_ports()
                    self._look()
                turn += 1
                self._send_feedback()
                self._service.stopping.wait(1.0 / FEEDBACK_HZ)
        finally:
            ports = (*self._inputs.values(), *self._outputs.values())
            self._inputs, self._outputs = {}, {}
            for port in ports:
                port.close()

    def _look(self) -> None:
        """Read the file if it was replaced: another Tidecast may have learned a knob, or somebody imported a show."""
        now = signature(self._path)
        if now == self._seen:
            return
        self._seen = now
        if not now:  # it was deleted: the bindings in use stay
            return
        try:
            self._adopt(load(self._path, self._table))
        except BindingsError as error:
            self._report("midi", f"{error} The bindings in use stay.")

    def _adopt(self, in_file: tuple[Binding, ...]) -> None:
        """Use these bindings, and what was learned here and is not written yet."""
        with self._lock:
            for knob, address in self._unsaved:
                in_file = learned(in_file, knob, address, self._table)
            if in_file != self._bindings:
                self._bindings = in_file
                self._takeovers = {}
                self._changed.update(self._table.by_name)

    def _update_ports(self) -> None:
        """Open ports that have appeared and close those that are gone."""
        try:
            names = [n for n in self._backend.get_input_names() if self._wanted(n) or self._clock.wants_midi(n)]
            outputs = self._backend.get_output_names()
        except OSError as error:
            log.warning("MIDI ports cannot be listed: %s", error)
            return
        for name in [n for n in self._inputs if n not in names]:
            self._inputs.pop(name).close()
            if name in self._outputs:
                self._outputs.pop(name).close()
            log.info("MIDI: %s is gone", name)
        for name in names:
            if name in self._inputs:
                continue
            try:
                self._inputs[name] = self._backend.open_input(name, callback=self._callback(name))
                if name in outputs and self._wanted(name):
                    self._outputs[name] = self._backend.open_output(name)
                    with self._lock:
                        self._changed.update(self._table.by_name)
                log.info("MIDI: %s", name)
            except OSError as error:  # used by another program (Windows), or unplugged meanwhile
                log.warning("MIDI: %s cannot be opened: %s", name, error)

    def _wanted(self, name: str) -> bool:
        return self._port in name and not any(part in name for part in NOT_CONTROLLERS)

    def _callback(self, name: str) -> Callable[[Any], None]:
        port, is_controller = stable_name(name), self._wanted(name)
        heard_as = f"{MIDI}/{'_'.join(port.split())}"

        def receive(message: Any) -> None:
            ns = time.monotonic_ns()  # first of all: the beat is as exact as this
            if message.type in CLOCK_MESSAGES:
                self._clock.midi(port, message.type, message.pos if message.type == "songpos" else 0, ns)
            elif is_controller:
                if message.type == "control_change":
                    self._signals.put(f"{heard_as}/{message.control}", float(message.value), ns)
                self._obey(port, message)

        return receive

    def _note_change(self, name: str, value: Any, origin: Origin) -> None:
        control = self._table.by_name[name]
        with self._lock:
            for (binding, port), takeover in self._takeovers.items():
                if self._control(binding) is control and origin.name != f"midi:{port}":
                    takeover.changed(control.to_norm(value) * 127.0)
            if not origin.name.startswith("midi:"):
                self._changed.add(name)

    def _send_feedback(self) -> None:
        """Send changes from elsewhere to controllers with motors or lights."""
        with self._lock:
            names, self._changed = self._changed, set()
        if not names:
            return
        now = self._store.snapshot
        for binding in self._bindings:
            control = self._control(binding)
            if control is None or control.name not in names or binding.cc is None or binding.args:
                continue
            value = now.value(control.name)
            if control.numeric:
                midi = control.to_midi(value)
            elif control.kind is Kind.BOOL:
                midi = 127 * value
            else:
                continue
            for name, output in list(self._outputs.items()):
                if binding.port and binding.port in name:
                    send_control(output, binding.channel or 1, binding.cc, midi)

    # Messages: on the port's thread

    def _obey(self, port: str, message: Any) -> None:
        origin = Origin(f"midi:{port}", Trust.MACHINE)
        if message.type == "program_change":
            self._store.handle(PREFIX + "/snapshot/recall", [message.program + 1], origin)
            return
        if message.type == "control_change":
            knob, value = Knob(port, message.channel + 1, "cc", message.control), message.value
        elif message.type in ("note_on", "note_off"):
            knob = Knob(port, message.channel + 1, "note", message.note)
            value = message.velocity if message.type == "note_on" else 0
        else:
            return
        with self._lock:
            learning, caller = self._learning, self._learner
            if learning and not self._learns(knob, value):
                return
            before = self._positions.get(knob, 0)
            self._positions[knob] = value
            bindings = [b for b in self._bindings if b.matches(knob)]
        if learning:
            self._save(knob, learning, caller)
            return
        for binding in bindings:
            self._apply(binding, knob, value, before, origin)

    def _apply(self, binding: Binding, knob: Knob, value: int, before: int, origin: Origin) -> None:
        """Carry out one binding for one message."""
        control = self._control(binding)
        pressed = value > 0 if knob.kind == "note" else press(value, before)
        if binding.args or control is None:
            if pressed:
                self._store.handle(binding.address, binding.args, origin)
        elif binding.toggle:
            if pressed:
                self._store.handle(binding.address, [not self._store.snapshot.value(control.name)], origin)
        elif control.kind is Kind.BOOL:
            self._store.handle(binding.address, [value >= 64], origin)
        elif control.kind is Kind.CHOICE:
            self._store.handle(binding.address, [choice(value, len(control.choices))], origin)
        elif knob.kind == "cc" or pressed:
            position = self._position(binding, knob, value)
            current = control.to_norm(self._store.snapshot.value(control.name)) * 127.0
            with self._lock:
                takeover = self._takeovers.setdefault((binding, knob.port), Takeover())
                caught = takeover.moved(position, current) or knob.kind == "note"
            if caught:
                self._store.handle(f"{binding.address}/midi", [position], origin)

    def _position(self, binding: Binding, knob: Knob, value: int) -> float:
        if not binding.fine:
            return float(value)
        assert binding.cc is not None
        other = binding.cc + 32 if knob.number == binding.cc else binding.cc
        half = self._positions.get(Knob(knob.port, knob.channel, "cc", other), 0)
        return scaled(binding, value, half) if knob.number == binding.cc else scaled(binding, half, value)

    def _learns(self, knob: Knob, value: int) -> bool:
        """Whether the knob has moved far enough to be learned; then it is bound."""
        first = self._learn_starts.setdefault(knob, value)
        moved = abs(value - first) >= LEARN_TRAVEL if knob.kind == "cc" else value > 0
        if moved:
            self._bindings = learned(self._bindings, knob, self._learning, self._table)
            self._unsaved.append((knob, self._learning))
            self._learning = ""
        return moved

    def _save(self, knob: Knob, address: str, caller: Caller) -> None:
        """Write what was learned into the file, and tell who asked for it. Does not hold the lock that writers of
        controls need: the disk may be slow."""
        log.info("MIDI: %s moves %s", knob, address)
        reason = ""
        try:
            with locked(self._path):
                self._merge_and_save()
        except BindingsError as error:
            reason = str(error)
        except OSError as error:  # from the lock
            reason = f"{self._path} cannot be written ({error.strerror})."
        if reason:
            self._report("midi", reason)
            caller.reply("/error", (PREFIX + LEARN.address, reason))
        caller.reply("/midi/learned", (address, str(knob)))

    def _merge_and_save(self) -> None:
        """Bind what was learned here in the bindings of the file, where another Tidecast may have learned something
        else since it was read. Without a file, it was deleted or set aside meanwhile, in the bindings in use."""
        try:
            in_file = load(self._path, self._table) if self._path.exists() else self._bindings
        except BindingsError as error:
            if self._path.exists():
                raise
            self._report("midi", f"{error} The bindings in use stay.")
            in_file = self._bindings
        with self._lock:
            unsaved = tuple(self._unsaved)
            for knob, address in unsaved:
                in_file = learned(in_file, knob, address, self._table)
            self._bindings = in_file
        save(self._path, in_file)
        with self._lock:
            self._unsaved = [one for one in self._unsaved if one not in unsaved]
