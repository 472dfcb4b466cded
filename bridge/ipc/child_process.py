"""A process that this one starts, talks to and ends, without waiting longer than a few seconds for anything it does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import _ConnectionBase, wait
from multiprocessing.context import get_spawning_popen
from typing import Any, Generic

from bridge.ipc.background_channel import BackgroundChannel
from bridge.ipc.channel import Channel, Received, Sent
from bridge.ipc.start_process import start_process

KILL_S = 5.0
"""How long it may take to end when it is killed. One that waits for a driver that hangs may never end."""

SPAWN = multiprocessing.get_context("spawn")


class PassedConnection:
    """One end of a pipe, as an argument of a process that is started: its main function receives the connection itself.

    The handle is duplicated into the new process. multiprocessing passes connections differently on Windows: it keeps
    a duplicate in this process until the new one fetches it. If that is killed while it starts, the duplicate stays,
    and this process never sees the end of the pipe.
    """

    def __init__(self, connection: _ConnectionBase[Any, Any]) -> None:
        self._connection = connection

    def __reduce__(self) -> tuple[Any, ...]:
        starting: Any = get_spawning_popen()
        handle = starting.duplicate_for_child(self._connection.fileno())
        return type(self._connection), (handle, self._connection.readable, self._connection.writable)


class ChildProcess(Generic[Sent, Received]):
    """One process, from start to end, and the channel to it.

    Args:
        name: the topic of what is reported; the process is called `tidecast-` and this.
        main: its main function.
        arguments: returns the arguments of `main`, given the process's end of the pipe.
        receives: the classes of messages that it may send.
        handle, report: see `BackgroundChannel`.

    Attributes:
        channel: messages to it and from it.
        pid: process id.

    Raises:
        OSError: if there are no descriptors, no memory or no processes left.
        RuntimeError: if there are no threads left.
    """

    def __init__(
        self,
        name: str,
        main: Callable[..., None],
        arguments: Callable[[PassedConnection], tuple[Any, ...]],
        receives: tuple[type[Received], ...],
        handle: Callable[[Received], None],
        report: Callable[[str, str], None],
    ) -> None:
        ours, theirs = SPAWN.Pipe()
        channel = Channel[Sent, Received](ours, receives)
        self.channel = BackgroundChannel[Sent, Received](name, channel, handle, report)
        try:
            with theirs:
                passed = arguments(PassedConnection(theirs))
                self._process = SPAWN.Process(target=main, args=passed, name=f"tidecast-{name}", daemon=True)
                start_process(self._process)
        except BaseException:
            ours.close()
            raise
        self.pid = self._process.pid or 0
        try:
            self.channel.start()
        except BaseException:
            self._end(None, 0.0)
            raise

    def _exited(self, timeout_s: float) -> bool:
        """Wait for the process to end; returns whether it has."""
        exited = bool(wait([self._process.sentinel], timeout_s))
        if exited:
            self._process.join(KILL_S)  # the sentinel is ready a little before the exit code
        return exited

    def _end(self, stop: Sent | None, stop_s: float) -> bool:
        """End the process: send it `stop`, if given, and wait for `stop_s`; then kill it.

        Returns:
            Whether it is gone. A process that waits for a driver that hangs cannot be killed.
        """
        if stop is not None:
            self.channel.post(stop)
            self._process.join(stop_s)
        if self._process.is_alive():
            self._kill()
            self._process.join(KILL_S)
        if self._process.is_alive():
            self.channel.close(0.0)
            return False
        self._process.close()
        return self.channel.close(KILL_S)

    def _kill(self) -> None:
        self._process.kill()
