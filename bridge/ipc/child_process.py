"""A process that this one starts, talks to and ends, without waiting longer than a few seconds for anything it does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import _ConnectionBase, wait
from typing import Any, Generic

from bridge.ipc.background_channel import BackgroundChannel
from bridge.ipc.channel import Channel, Received, Sent
from bridge.ipc.start_process import start_process

KILL_S = 5.0
"""How long it may take to end when it is killed. One that waits for a driver that hangs may never end."""

SPAWN = multiprocessing.get_context("spawn")


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
        arguments: Callable[[_ConnectionBase[Any, Any]], tuple[Any, ...]],
        receives: tuple[type[Received], ...],
        handle: Callable[[Received], None],
        report: Callable[[str, str], None],
    ) -> None:
        ours, theirs = SPAWN.Pipe()
        channel = Channel[Sent, Received](ours, receives)
        self.channel = BackgroundChannel[Sent, Received](name, channel, handle, report)
        try:
            with theirs:
                passed = arguments(theirs)
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
