"""One end of a pipe between two processes that carries messages of declared classes.

`receive` returns an instance of one of these classes or raises, so that a `match` over them can be exhaustive. The
classes are declared in a `messages` module for each pair of processes.
"""

from __future__ import annotations

import pickle
import threading
from multiprocessing.connection import _ConnectionBase  # common base: Windows has a class of its own
from typing import Any, Generic, TypeVar

from engine.errors import TidecastError

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class MessageError(TidecastError):
    """What was received is not a message that this end expects."""


class Channel(Generic[Sent, Received]):
    """One end of a duplex pipe. Any thread may send; one thread receives.

    Args:
        connection: this end of the pipe. Pass the connection, not the `Channel`, as an argument of a process.
        receives: the classes of messages that the other end may send.
    """

    def __init__(self, connection: _ConnectionBase[Any, Any], receives: tuple[type[Received], ...]) -> None:
        self.connection = connection
        self._receives = receives
        self._sending = threading.Lock()

    def send(self, message: Sent) -> None:
        """Send one message.

        Raises:
            OSError: the other end is closed.
        """
        with self._sending:
            self.connection.send(message)

    def receive(self) -> Received:
        """Wait for one message.

        Raises:
            EOFError, OSError: this end or the other one is closed.
            MessageError: the data is garbled or of another class; the next message can still be received.
        """
        data = self.connection.recv_bytes()
        try:
            message = pickle.loads(data)
        except Exception as error:  # unpickling can raise anything
            raise MessageError(f"A message of {len(data)} bytes between two processes is garbled: {error}") from error
        if not isinstance(message, self._receives):
            known = ", ".join(kind.__name__ for kind in self._receives)
            raise MessageError(f"A {type(message).__name__} is not a message that is expected here. Known: {known}.")
        return message

    def close(self) -> None:
        """Close this end; idempotent."""
        self.connection.close()
