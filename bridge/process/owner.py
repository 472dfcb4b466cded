"""The engine process's side of the pipe: what it tells its owner, and what the owner last asked for."""

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


class Owner:
    """The bridge process, as the engine process sees it. When it is gone, this process ends at once.

    Args:
        connection: this process's end of the pipe.
        controls: the live controls in force at the start.

    Attributes:
        controls: the live controls that were sent last.
        stopped: whether the owner asked for the end.
    """

    def __init__(self, connection: Connection, controls: Controls) -> None:
        self.controls = controls
        self.stopped = False
        self._fault: Fault | None = None
        self._channel: Channel[FromEngine, ToEngine] = Channel(connection, TO_ENGINE)
        Service("owner", self._read, lambda topic, text: self.tell(Complaint(topic, text))).start()

    def tell(self, message: FromEngine) -> None:
        """Send one message, from any thread."""
        try:
            self._channel.send(message)
        except OSError:
            os._exit(1)  # nobody is left to work for

    def take_fault(self) -> Fault | None:
        """The fault that was asked for since the last call, if any."""
        fault, self._fault = self._fault, None
        return fault

    def obey(self, message: ToEngine) -> None:
        """Note what one message asks for; the loop acts on it."""
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
                os._exit(1)  # the owner died: so must this process, whatever it is doing
            except MessageError as error:
                self.tell(Complaint("engine", str(error)))


class LogToOwner(logging.Handler):
    """Hands log records to the owner, whose terminal it is."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self._owner = owner

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self._owner.tell(LogLine(record.levelno, record.name, self.format(record)))
