"""The engine process's end of the pipe: messages to its parent, and what the parent asked for last."""

from __future__ import annotations

import logging
import os
from multiprocessing.connection import Connection
from typing import assert_never

from bridge.allowance import Allowance
from bridge.ipc.channel import Channel, MessageError
from bridge.process.faults import Fault
from bridge.process.messages import (
    TO_ENGINE,
    Complaint,
    ControlsChanged,
    FromEngine,
    InjectFault,
    LogLine,
    Stop,
    ToEngine,
)
from bridge.service import Service
from engine.controls import Controls

LINES_PER_S = 10.0
LINES_AT_ONCE = 200.0
"""Most log lines in the long run, and in a burst: the start of an engine writes some dozens."""

MAX_LINE = 20_000
"""Most characters of a log line; a traceback has some thousands."""


class Parent:
    """The bridge process, as the engine process sees it. When it is gone, the engine process exits at once.

    Args:
        connection: this process's end of the pipe.
        controls: the live controls in force at the start.

    Attributes:
        controls: the live controls that were received last.
        stopped: whether the parent has sent `Stop`.
    """

    def __init__(self, connection: Connection, controls: Controls) -> None:
        self.controls = controls
        self.stopped = False
        self._fault: Fault | None = None
        self._channel: Channel[FromEngine, ToEngine] = Channel(connection, TO_ENGINE)
        Service("parent", self._read, lambda topic, text: self.tell(Complaint(topic, text))).start()

    def tell(self, message: FromEngine) -> None:
        """Send one message, from any thread."""
        try:
            self._channel.send(message)
        except OSError:
            os._exit(1)  # the parent is gone

    def take_fault(self) -> Fault | None:
        """The fault that was requested since the last call, if any."""
        fault, self._fault = self._fault, None
        return fault

    def obey(self, message: ToEngine) -> None:
        """Record what one message asks for; the loop acts on it."""
        match message:
            case ControlsChanged(controls):
                self.controls = controls
            case InjectFault(fault):
                self._fault = fault
            case Stop():
                self.stopped = True
            case _:
                assert_never(message)

    def _read(self) -> None:
        while True:
            try:
                self.obey(self._channel.receive())
            except (EOFError, OSError):
                os._exit(1)  # the parent is gone: exit, whatever the other threads are doing
            except MessageError as error:
                self.tell(Complaint("engine", str(error)))


class LogToParent(logging.Handler):
    """Sends log records to the parent, which writes them to its own log.

    A library that logs without end must not keep the parent from sending pictures: what exceeds `LINES_PER_S` in the
    long run is counted, and the count is sent with the next record that is.
    """

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self._parent = parent
        self._allowance = Allowance(LINES_PER_S, LINES_AT_ONCE)
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, or count it. The handler's lock is held."""
        if self._allowance.left < 1.0:
            self._left_out += 1
            return
        self._allowance.take()
        if self._left_out:
            self._parent.tell(LogLine(logging.WARNING, __name__, f"{self._left_out} log lines were left out here"))
            self._left_out = 0
        text = self.format(record)
        cut = f"{text[:MAX_LINE]} ... ({len(text):,} characters)" if len(text) > MAX_LINE else text
        self._parent.tell(LogLine(record.levelno, record.name, cut))
