"""What Tidecast reports: the newest value of every reading, and the errors as they occur.

The threads that measure call `update`; OSC and the control room read `snapshot` at their own rate.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from bridge.control.table import ControlTable
from engine.control import Kind

log = logging.getLogger(__name__)

_CASTS: dict[Kind, Callable[[Any], Any]] = {Kind.FLOAT: float, Kind.INT: int, Kind.TEXT: str}

ErrorListener = Callable[[str, str], None]
"""Called as (topic, reason); the topic is an OSC address or the name of a part of the program."""


class Telemetry:
    """The newest readings. Every method is thread-safe; listeners must be quick.

    Args:
        table: declares the readings.
    """

    def __init__(self, table: ControlTable) -> None:
        self._readings = table.readings_by_name
        self._values: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._listeners: tuple[ErrorListener, ...] = ()

    def update(self, **readings: Any) -> None:
        """Replace the newest values of these readings.

        Raises:
            KeyError: if the table has no reading of that name.
            ValueError, TypeError: if a value is not of the reading's type.
        """
        cast = {name: _CASTS[self._readings[name].kind](value) for name, value in readings.items()}
        with self._lock:
            self._values = {**self._values, **cast}

    def snapshot(self) -> dict[str, Any]:
        """Name and newest value of every reading that has one. The caller owns the result."""
        return dict(self._values)

    def error(self, topic: str, reason: str) -> None:
        """Report that something went wrong: to the log and to every listener."""
        log.warning("%s: %s", topic, reason)
        for listener in self._listeners:
            try:
                listener(topic, reason)
            except Exception:  # a defect in a listener must not reach the caller, which reports its own error
                log.exception("a listener of the errors failed")

    def listen_errors(self, callback: ErrorListener) -> Callable[[], None]:
        """Call `callback` for every error; returns a function that unregisters it."""
        with self._lock:
            self._listeners = (*self._listeners, callback)

        def unlisten() -> None:
            with self._lock:
                self._listeners = tuple(c for c in self._listeners if c is not callback)

        return unlisten
