"""`AudioService`: the chosen sound, its readings as telemetry and as signals, and the tempo that it proposes.

Every source is heard on a thread of its own (`Listener`), so that one that hangs delays nothing. The service's thread
starts them, gives up what fails, tries it again with a pause that grows, and writes the telemetry.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

from bridge.audio.analysis import SILENCE, Features, Settings
from bridge.audio.controls import TAKE, AudioControls, State
from bridge.audio.listener import Listener
from bridge.audio.source import NDI, OFF, AudioSource, open_source, parse
from bridge.control.origin import Origin, Trust
from bridge.control.signals import Signals
from bridge.control.store import Caller, ControlStore
from bridge.control.telemetry import Telemetry
from bridge.pipeline.endpoints.endpoint_thread import HANG_S
from bridge.pipeline.endpoints.retry import Backoff
from bridge.service import Service
from engine.control import PREFIX
from engine.errors import ControlError

TOPIC = "audio"

TELL_S = 0.1
"""Time between two updates of the telemetry."""

STOP_S = 3.0
"""Longest wait for sources to be closed at the end, in s."""

MOST_LEFT = 4
"""Sources that may still be closing or hanging when another one is opened."""

DIGITS = 3

NAMES = tuple(field.name for field in dataclasses.fields(Features))


class AudioService:
    """The sound of a running bridge. `start` and `stop` are idempotent.

    Args:
        store: the live controls.
        telemetry: receives the readings and the errors.
        signals: receives each reading at once, under `audio/` and its name.
        playing: the full name of the NDI source that plays; empty if none does.
        make: makes a source of this name.
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        signals: Signals,
        playing: Callable[[], str] = lambda: "",
        make: Callable[[str, Callable[[], str]], AudioSource] = open_source,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._signals = signals
        self._playing = playing
        self._make = make
        self._wake = threading.Event()
        self._service = Service(TOPIC, self._run, telemetry.error, self._wake.set)
        self._undo: list[Callable[[], None]] = []
        self._listener: Listener | None = None
        self._left: list[Listener] = []
        self._backoff = Backoff()
        self._wanted = OFF
        self._said = ""
        self._features = SILENCE
        self._changing = threading.Lock()  # held for an instant: what another source still hears must not count

    @property
    def _controls(self) -> AudioControls:
        return self._store.snapshot.of(AudioControls)

    def start(self) -> AudioService:
        """Obey the controls and the command, and listen."""
        if not self._undo:
            self._undo = [
                self._store.on(TAKE.name, self._take),
                self._store.restrict("audio_source", _allowed),
                self._store.listen(self._note),
            ]
            self._service.start()
        return self

    def stop(self) -> None:
        """Close the source and obey nothing more. A source that hangs is left behind."""
        for undo in self._undo:
            undo()
        self._undo = []
        self._service.stop(STOP_S)
        self._leave()
        for listener in self._left:
            listener.join(STOP_S)

    def _note(self, name: str, value: Any, origin: Origin) -> None:
        if name == "audio_source":
            self._wake.set()

    def _take(self, args: tuple[Any, ...], caller: Caller) -> None:
        bpm = self._bpm
        if not bpm:
            raise ControlError(PREFIX + TAKE.address, "No tempo is heard.", "It takes seconds of even beats; or tap.")
        self._store.set("tempo_bpm", bpm, caller.origin)

    @property
    def _bpm(self) -> float:
        listener = self._listener
        return listener.bpm if listener is not None else 0.0

    # The thread

    def _run(self) -> None:
        while not self._service.stopping.is_set():
            self._wake.clear()
            self._follow()
            self._tell()
            self._wake.wait(TELL_S)

    def _follow(self) -> None:
        """Listen to what is wanted: give up another source and one that has failed, and open what is missing."""
        wanted = self._controls.audio_source.strip()
        if wanted != self._wanted:
            self._wanted, self._said = wanted, ""
            self._backoff.reset()
            self._leave()
        listener = self._listener
        if listener is not None:
            if listener.ended or listener.hangs:
                self._say(listener.error or f"{listener.uri} has not answered for {HANG_S:g} s.")
                self._backoff.failed()
                self._leave()
            elif listener.problem:
                self._say(listener.problem)
            elif listener.running:
                self._said = ""
                self._backoff.worked()
            return
        self._left = [left for left in self._left if left.alive]
        if wanted.lower() != OFF and self._backoff.over and len(self._left) < MOST_LEFT:
            self._listener = Listener(wanted, lambda: self._make(wanted, self._playing), self._settings, self._heard)

    def _leave(self) -> None:
        """Have the source closed. Nothing that it still hears counts."""
        with self._changing:
            listener, self._listener = self._listener, None
            if listener is None:
                return
            self._put(SILENCE, time.monotonic_ns())
        listener.end()
        self._left.append(listener)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._telemetry.error(TOPIC, text)

    def _tell(self) -> None:
        listener, features = self._listener, self._features
        running = listener is not None and listener.running
        state = State.RUNNING if running else State.OFF if self._wanted.lower() == OFF else State.WAITING
        self._telemetry.update(
            audio_state=str(state),
            audio_heard=listener.title if listener is not None else "",
            audio_bpm=self._bpm,
            **{f"audio_{name}": round(getattr(features, name), DIGITS) for name in NAMES},
        )

    # On the listener's thread

    def _settings(self) -> Settings:
        now = self._controls
        return Settings(
            now.audio_auto,
            10.0 ** (now.audio_gain / 20.0),
            now.audio_release / 1e3,
            now.audio_low_edge,
            now.audio_high_edge,
        )

    def _heard(self, listener: Listener, features: Features, at_ns: int) -> None:
        with self._changing:
            if listener is self._listener:
                self._put(features, at_ns)

    def _put(self, features: Features, at_ns: int) -> None:
        self._features = features
        for name in NAMES:
            self._signals.put(f"audio/{name}", getattr(features, name), at_ns)


def _allowed(value: Any, origin: Origin) -> Any:
    """The rule of the control: other machines may choose what programs send, but open no device of this one.

    Raises:
        ControlError: if this sender may not choose it.
    """
    scheme, _ = parse(str(value))
    if origin.trust is Trust.NETWORK and scheme not in (OFF, NDI):
        raise ControlError(
            f"{PREFIX}/audio/source",
            "Senders on other machines may not open a sound device of this one.",
            "Choose it on the machine of Tidecast.",
        )
    return value
