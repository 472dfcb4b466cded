"""A channel that never makes its owner wait for the other process.

A pipe blocks whoever writes to it while the other process does not read, and whoever reads from it while half a message
is under way. A process that watches another must do neither: what it watches may be stopped, hang or die at any moment,
between any two bytes. So two threads wait in its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic

from bridge.ipc.channel import Channel, MessageError, Received, Sent
from bridge.service import Service


class BackgroundChannel(Generic[Sent, Received]):
    """A `Channel` with one thread that sends and one that receives.

    Of every class of message, only the newest waits to be sent: a process that does not read costs no memory, and gets
    the newest values when it reads again.

    Args:
        name: the other process; the threads' names begin with it, and it is the topic of what is reported.
        channel: this end of the pipe; `close` closes it.
        handle: called with each message, on the receiving thread.
        report: called with a topic and a text when a message is garbled, or when `handle` raises.

    Attributes:
        ended: set when the other end is closed and everything that it sent has been handled.
    """

    def __init__(
        self,
        name: str,
        channel: Channel[Sent, Received],
        handle: Callable[[Received], None],
        report: Callable[[str, str], None],
    ) -> None:
        self.ended = threading.Event()
        self._name = name
        self._channel = channel
        self._handle = handle
        self._report = report
        self._unsent: dict[type, Sent] = {}
        self._sending = False
        self._change = threading.Condition()
        self._sender = Service(f"{name}-send", self._send, report, self._notice)
        self._receiver = Service(f"{name}-receive", self._receive, report)

    def start(self) -> None:
        """Start the threads.

        Raises:
            RuntimeError: if the system has no thread to give.
        """
        try:
            self._receiver.start()
            self._sender.start()
        except RuntimeError:
            self.ended.set()
            raise

    def post(self, message: Sent) -> None:
        """Send a message when the other process reads; replaces one of the same class that has not been sent yet."""
        with self._change:
            self._unsent.pop(type(message), None)
            self._unsent[type(message)] = message
            self._change.notify()

    @property
    def busy(self) -> bool:
        """Whether a message waits to be sent, or is being sent."""
        with self._change:
            return bool(self._unsent) or self._sending

    def close(self, timeout_s: float) -> bool:
        """Close this end. Call it when the other process is gone.

        A thread that still waits after `timeout_s` is left to itself, as nothing but the end of the other process
        releases it; then this end stays open.

        Returns:
            Whether both threads have ended.
        """
        self.ended.wait(timeout_s)
        gone = all([service.stop(timeout_s) for service in (self._receiver, self._sender)])
        if gone:
            self._channel.close()
        return gone

    def _send(self) -> None:
        while True:
            with self._change:
                self._sending = False
                self._change.wait_for(lambda: self._unsent or self._sender.stopping.is_set())
                if self._sender.stopping.is_set():
                    return
                message = self._unsent.pop(next(iter(self._unsent)))
                self._sending = True
            try:
                self._channel.send(message)
            except OSError:
                return  # the other process is gone; the receiving thread notices it too

    def _receive(self) -> None:
        while not self._receiver.stopping.is_set():
            try:
                message = self._channel.receive()
            except MessageError as error:
                self._report(self._name, str(error))
                continue
            except (EOFError, OSError):  # BrokenPipeError on Windows
                break
            if not self._receiver.stopping.is_set():
                self._handle(message)
        self.ended.set()

    def _notice(self) -> None:
        with self._change:
            self._change.notify()
