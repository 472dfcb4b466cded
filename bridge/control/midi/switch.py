"""Switches MIDI on, at the start or while Tidecast runs: nobody has to start again because a controller turned up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.control.files import locked
from bridge.control.midi.backend import MidiError, open_backend
from bridge.control.midi.bindings import Binding, BindingsError, load, save
from bridge.control.midi.clock_listener import ClockListener
from bridge.control.midi.input import LEARN, MidiInput
from bridge.control.signals import Signals
from bridge.control.store import Caller, ControlStore
from bridge.service import Service
from engine.control import PREFIX, Command
from engine.errors import ControlError

SWITCH_ON = Command("midi_on", "/midi/on", (), "MIDI", "MIDI on", "Listen to MIDI controllers from now on.")


class MidiSwitch:
    """MIDI, on or off, from one `start` to one `stop`.

    Args:
        store: the live controls.
        path: the TOML file of bindings.
        report: called with (topic, reason) when something goes wrong.
        port: use only ports with this text in their names.
        clock: hears the MIDI clock; None for nobody.
        signals: receives the numbers of all controllers; None for nobody.

    Attributes:
        input: what listens to the controllers; None while MIDI is off.
    """

    def __init__(
        self,
        store: ControlStore,
        path: Path,
        report: Callable[[str, str], None],
        port: str = "",
        clock: ClockListener | None = None,
        signals: Signals | None = None,
    ) -> None:
        self.input: MidiInput | None = None
        self._store = store
        self._path = path
        self._report = report
        self._port = port
        self._clock = clock
        self._signals = signals
        self._switching = threading.Lock()
        self._service: Service | None = None
        self._undo = contextlib.ExitStack()

    def start(self, on: bool) -> MidiSwitch:
        """Obey `SWITCH_ON`; with `on`, switch MIDI on at once. That it cannot be had is reported."""
        self._undo.callback(self._store.on(SWITCH_ON.name, self._asked))
        self._undo.callback(self._store.on(LEARN.name, self._learn))
        if on:
            self._switch_on()
        return self

    def stop(self) -> None:
        """Switch MIDI off, for good."""
        self._undo.close()
        if self._service is not None:
            self._service.stop()
        with self._switching:
            midi, self.input = self.input, None
        if midi is not None:
            midi.stop()

    def bindings(self) -> tuple[Binding, ...]:
        """The bindings in use; while MIDI is off, those of the file.

        Raises:
            BindingsError: if the file cannot be read or is damaged.
        """
        midi = self.input
        return midi.bindings if midi is not None else load(self._path, self._store.table)

    def replace(self, bindings: tuple[Binding, ...]) -> None:
        """Use these bindings from now on, and write them.

        Raises:
            BindingsError: if they cannot be written; the old ones stay in use.
        """
        try:
            with locked(self._path):
                save(self._path, bindings)
        except OSError as error:  # from the lock
            raise BindingsError(f"{self._path} cannot be written ({error.strerror}).") from error
        midi = self.input
        if midi is not None:
            midi.use(bindings)

    def _asked(self, args: tuple[Any, ...], caller: Caller) -> None:
        """Switch it on, on a thread of its own: loading the library may take long."""
        if self._service is None or self._service.stop(0.0):
            self._service = Service("midi-on", self._switch_on, self._report)
            self._service.start()

    def _switch_on(self) -> None:
        with self._switching:
            if self.input is not None:
                return
            try:
                backend = open_backend()
            except MidiError as error:
                self._report("midi", str(error))
                return
            midi = MidiInput(
                self._store,
                self._path,
                self._report,
                backend,
                port=self._port,
                clock=self._clock,
                signals=self._signals,
            )
            self.input = midi.start()

    def _learn(self, args: tuple[Any, ...], caller: Caller) -> None:
        """Answer a request to learn a knob while nobody listens to MIDI."""
        if self.input is None:
            raise ControlError(
                PREFIX + LEARN.address, "MIDI is off.", f"Send {PREFIX}{SWITCH_ON.address}, or start with --midi."
            )
