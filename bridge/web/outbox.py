"""Messages queued for the web process, merged so that a slow or dead process costs no memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from bridge.web.messages import (
    ChangesPending,
    ControlsChanged,
    ControlValue,
    CuesTold,
    ErrorNote,
    ErrorsReported,
    InputsFound,
    MidiState,
    News,
    ReadingsChanged,
    Reply,
    ShowAnswer,
    SnapshotsStored,
    WordsKnown,
)

ERRORS_KEPT = 40
MAX_PENDING_REPLIES = 64
MAX_PENDING_ANSWERS = 8


class Outbox:
    """Messages to the web process; of each control and reading only the newest value is queued. Thread-safe."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._controls: dict[str, ControlValue] = {}
        self._readings: dict[str, Any] = {}
        self._told_readings: dict[str, Any] = {}
        self._all_errors: deque[ErrorNote] = deque(maxlen=ERRORS_KEPT)
        self._errors: deque[ErrorNote] = deque(maxlen=ERRORS_KEPT)
        self._replies: deque[Reply] = deque(maxlen=MAX_PENDING_REPLIES)
        self._answers: deque[ShowAnswer] = deque(maxlen=MAX_PENDING_ANSWERS)
        self._states: dict[type[News], News] = {}
        self._told_states: dict[type[News], News] = {}

    def tell_everything(self, controls: Mapping[str, Any]) -> None:
        """Queue these controls and every reading, state and kept error, for a web process that was just started."""
        with self._change:
            self._controls = {name: ControlValue(value, "") for name, value in controls.items()}
            self._readings |= self._told_readings
            self._errors = deque(self._all_errors, maxlen=ERRORS_KEPT)
            self._states = {**self._told_states, **self._states}
            self._told_readings, self._told_states = {}, {}
            self._replies.clear()
            self._answers.clear()
            self._change.notify()

    def control(self, name: str, value: Any, origin: str) -> None:
        """A control was set."""
        with self._change:
            self._controls[name] = ControlValue(value, origin)
            self._change.notify()

    def readings(self, values: Mapping[str, Any]) -> None:
        """The newest readings; unchanged ones are not queued again. Does not end `wait`."""
        with self._change:
            changed = {name: value for name, value in values.items() if self._told_readings.get(name) != value}
            self._readings |= changed

    def error(self, topic: str, reason: str) -> None:
        """An error was reported."""
        with self._change:
            note = ErrorNote(time.time(), topic, reason)
            self._all_errors.append(note)
            self._errors.append(note)
            self._change.notify()

    def reply(self, reply: Reply) -> None:
        """An answer to a page."""
        with self._change:
            self._replies.append(reply)
            self._change.notify()

    def answer(self, answer: ShowAnswer) -> None:
        """An answer to a page that saves or opens a show."""
        with self._change:
            self._answers.append(answer)
            self._change.notify()

    def state(
        self, message: InputsFound | SnapshotsStored | MidiState | ChangesPending | CuesTold | WordsKnown
    ) -> None:
        """The whole state of something; queued only if it has changed, replacing an older one of its kind."""
        with self._change:
            kind = type(message)
            if isinstance(message, InputsFound) or self._told_states.get(kind) != message:  # a page awaits it
                self._states[kind] = message
                self._change.notify()

    def wake(self) -> None:
        """Make `wait` return."""
        with self._change:
            self._change.notify()

    def wait(self, timeout_s: float) -> None:
        """Wait until something other than readings is queued, for at most `timeout_s`."""
        with self._change:
            if not (self._controls or self._errors or self._replies or self._answers or self._states):
                self._change.wait(timeout_s)

    def take(self) -> list[News | ShowAnswer]:
        """Everything that is queued; the queue is empty afterwards."""
        with self._change:
            messages: list[News | ShowAnswer] = []
            if self._controls:
                messages.append(ControlsChanged(self._controls))
            if self._readings:
                messages.append(ReadingsChanged(self._readings))
            if self._errors:
                messages.append(ErrorsReported(tuple(self._errors)))
            messages += [*self._states.values(), *self._replies, *self._answers]
            self._told_readings |= self._readings
            self._told_states |= self._states
            self._controls, self._readings, self._states = {}, {}, {}
            self._errors.clear()
            self._replies.clear()
            self._answers.clear()
            return messages
