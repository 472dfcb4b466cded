"""The engine process's end of the pipe: messages to its parent, and what the parent asked for last."""

from __future__ import annotations

import logging
import os
from multiprocessing.connection import Connection
from typing import assert_never

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
    """Sends log records to the parent, which writes them to its own log."""

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self._parent.tell(LogLine(record.levelno, record.name, self.format(record)))
