"""One web process as the bridge sees it: its start, the channel to it, its signs of life and its end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from bridge.ipc.child_process import KILL_S, ChildProcess
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


def _web_process(*args: Any) -> None:
    """Main function of the web process; imports the web framework only there."""
    from bridge.web.server.process import serve

    serve(*args)


class ServerProcess(ChildProcess[ToWeb, FromWeb]):
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
        self._handle = handle
        self._serving = False
        self._silent_s = 0.0
        self._looked_s = time.monotonic()
        with preview.readers() as readers:
            super().__init__(
                "web",
                _web_process,
                lambda connection: (connection, listening, readers, settings),
                FROM_WEB,
                self._heard,
                report,
            )

    def wait(self, timeout_s: float) -> str:
        """Wait for the process to end or to hang; returns why it has to be replaced, else an empty text."""
        if self._exited(timeout_s) or self.channel.ended.is_set():
            self._process.join(KILL_S)
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
        return self._end(Stop() if gently else None, STOP_S)

    def _heard(self, message: FromWeb) -> None:
        self._silent_s = 0.0
        self._serving = True
        self._handle(message)
