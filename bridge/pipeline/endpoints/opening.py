"""A service that opens a source or a sink on its own thread and reports to `start` whether that worked."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable

from bridge.process.priority import raise_thread_priority
from bridge.service import Service
from engine.errors import TransportError

START_S = 20.0
"""Longest wait at the start for the source or sink to open, in s."""

STOP_S = 6.0
"""Longest wait at the end for the thread, in s: a library that hangs must not keep the program from ending."""


class OpeningService(Service, abc.ABC):
    """Base of `Capture` and `Publisher`: SDK handles belong to the thread that uses them, so that thread opens them.

    When the first attempt to open fails, `start` raises. When the loop is run again after a defect, opening is tried
    until it works.

    Args:
        name: the thread's name, and the topic under which a defect is reported.
        what: what it opens, as the beginning of a sentence.
        tell: called with (topic, text) when a defect occurs.
    """

    def __init__(self, name: str, what: str, tell: Callable[[str, str], None]) -> None:
        super().__init__(name, tell=tell)
        self._what = what
        self._first_attempt = threading.Event()
        self._open_error: TransportError | None = None

    def start(self) -> None:
        """Start the thread and wait until it has opened its source or sink.

        Raises:
            TransportError: if it cannot be opened, or has not opened after `START_S`.
        """
        super().start()
        if not self._first_attempt.wait(START_S):
            self.stop(1.0)
            raise TransportError(f"{self._what} has not opened within {START_S:g} s.", "Check it, or choose another.")
        if self._open_error is not None:
            self.stop()
            raise self._open_error

    def stop(self, timeout_s: float | None = STOP_S) -> bool:
        """Stop the thread, which closes what it has opened. One that hangs is left behind; returns whether it ended."""
        return super().stop(timeout_s)

    @abc.abstractmethod
    def _open(self) -> None:
        """Open the source or sink; raises `TransportError` if that is impossible."""

    @abc.abstractmethod
    def _work(self) -> None:
        """Use it until `stopping` is set, and close it."""

    def _run(self) -> None:
        raise_thread_priority()
        try:
            self._open()
        except TransportError as error:
            if self._first_attempt.is_set():
                raise  # after a defect: the service runs the loop again
            self._open_error = error
            return
        finally:
            self._first_attempt.set()
        self._work()
