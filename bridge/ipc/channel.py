"""One end of a pipe between two processes, over which messages of known classes travel.

What comes out is one of the classes that were named, or an error that says what came instead: a match over them can
be exhaustive. The messages themselves are declared in a `messages` module beside each pair of processes.
"""

from __future__ import annotations

import pickle
import threading
from multiprocessing.connection import _ConnectionBase  # both classes of ends; Windows has one of its own
from typing import Any, Generic, TypeVar

from engine.errors import TidecastError

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class MessageError(TidecastError):
    """What came through a pipe is no message of this version of the program."""


class Channel(Generic[Sent, Received]):
    """One end of a duplex pipe. Any thread may send; one thread receives.

    Args:
        connection: the end; it can be an argument of a process, a `Channel` cannot.
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
            EOFError, OSError: the other end, or this one, is closed.
            MessageError: what came is garbled or foreign; the next message can be received all the same.
        """
        data = self.connection.recv_bytes()
        try:
            message = pickle.loads(data)
        except Exception as error:  # unpickling raises whatever the bytes make it raise
            raise MessageError(f"A message of {len(data)} bytes between two processes is garbled: {error}") from error
        if not isinstance(message, self._receives):
            known = ", ".join(kind.__name__ for kind in self._receives)
            raise MessageError(f"A {type(message).__name__} is no message that is expected here. Known: {known}.")
        return message

    def close(self) -> None:
        """Close this end; idempotent."""
        self.connection.close()
