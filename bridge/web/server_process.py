"""One web process as the bridge sees it: its start, the channel to it, its signs of life and its end."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from bridge.ipc.background_channel import BackgroundChannel
from bridge.ipc.channel import Channel
from bridge.ipc.start_process import start_process
from bridge.web.messages import FROM_WEB, FromWeb, Settings, Stop, ToWeb
from bridge.web.preview import Preview

START_S = 60.0
"""How long a web process may take until pages can be opened."""

HANG_S = 8.0
"""Silence after which a web process counts as hung. Its event loop sends `Alive` twice a second."""

LOOK_S = 1.0
"""Longest time between two looks that counts as silence. A longer one means that this process itself did not run."""

STOP_S = 4.0
"""How long it may take to end when it is asked to."""

KILL_S = 5.0
"""How long it may take to end when it is killed."""

_SPAWN = multiprocessing.get_context("spawn")


def _web_process(*args: Any) -> None:
    """Main function of the web process; imports the web framework only there."""
    from bridge.web.server.process import serve

    serve(*args)


class ServerProcess:
    """A running web process. Nothing that it does or leaves undone makes the caller wait, except in `end`.

    Args:
        settings: what it is started with.
        listening: the listening socket of its pages.
        preview: its pictures.
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
        settings: Settings,
        listening: socket.socket,
        preview: Preview,
        handle: Callable[[FromWeb], None],
        report: Callable[[str, str], None],
    ) -> None:
        ours, theirs = _SPAWN.Pipe()
        self._handle = handle
        self.channel: BackgroundChannel[ToWeb, FromWeb] = BackgroundChannel(
            "web", Channel(ours, FROM_WEB), self._heard, report
        )
        self._serving = False
        self._silent_s = 0.0
        self._looked_s = time.monotonic()
        try:
            with theirs, preview.readers() as readers:
                self._process = _SPAWN.Process(
                    target=_web_process, args=(theirs, listening, readers, settings), name="tidecast-web", daemon=True
                )
                start_process(self._process)
        except BaseException:
            ours.close()
            raise
        self.pid = self._process.pid or 0
        try:
            self.channel.start()
        except BaseException:
            self.end(gently=False)
            raise

    def wait(self, timeout_s: float) -> str:
        """Wait for the process to end or to hang; returns why it has to be replaced, else an empty text."""
        if wait([self._process.sentinel], timeout_s) or self.channel.ended.is_set():
            self._process.join(KILL_S)  # the sentinel is ready a little before the exit code
            code = self._process.exitcode
            return f"The web process died ({'its pipe is closed' if code is None else f'exit code {code}'})."
        now_s = time.monotonic()
        self._silent_s += min(now_s - self._looked_s, LOOK_S)
        self._looked_s = now_s
        limit_s = HANG_S if self._serving else START_S
        return f"The web process gave no sign of life for {limit_s:.0f} s." if self._silent_s > limit_s else ""

    def end(self, gently: bool) -> bool:
        """End the process: if `gently`, ask it first; then kill it. Takes a few seconds at most, whatever it does.

        Returns:
            Whether it is gone.
        """
        if gently:
            self.channel.post(Stop())
            self._process.join(STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(KILL_S)
        if self._process.is_alive():
            self.channel.close(0.0)
            return False
        self._process.close()
        return self.channel.close(KILL_S)

    def _heard(self, message: FromWeb) -> None:
        self._silent_s = 0.0
        self._serving = True
        self._handle(message)
