"""One engine process, from start to end, and the channel to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psutil

from bridge.ipc.child_process import ChildProcess
from bridge.process import worker
from bridge.process.engine.mask_rings import MaskRings
from bridge.process.engine.rings import RingPair
from bridge.process.heartbeat import Heartbeat
from bridge.process.messages import FROM_ENGINE, FromEngine, Start, Stop, ToEngine

STOP_S = 2.0
"""How long an engine process may take to end when it is asked to."""


class EngineProcess(ChildProcess[ToEngine, FromEngine]):
    """One engine process, from start to end, and the channel to it.

    Args:
        start: what it is started with.
        rings: the rings that it reads and writes.
        masks: those of the person mask.
        handle, report: see `BackgroundChannel`.

    Attributes:
        heartbeat: its counters.
        channel: messages to it and from it.
        pid: process id.

    Raises:
        OSError: if there are no descriptors, no memory or no processes left.
        RuntimeError: if there are no threads left.
    """

    def __init__(
        self,
        start: Start,
        rings: RingPair,
        masks: MaskRings,
        handle: Callable[[FromEngine], None],
        report: Callable[[str, str], None],
    ) -> None:
        self.heartbeat = Heartbeat()
        with rings.inbox.reader() as reader, rings.outbox.writer() as writer, masks.ends() as ends:
            super().__init__(
                "engine",
                worker.main,
                lambda connection: (start, reader, writer, connection, self.heartbeat, ends),
                FROM_ENGINE,
                handle,
                report,
            )

    @property
    def exit_text(self) -> str:
        """How the process ended, as part of a sentence."""
        code = self._process.exitcode
        if code is None:
            return "it has closed its pipe"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; returns whether it has."""
        return self._exited(timeout_s)

    def end(self, gently: bool) -> bool:
        """End the process: if `gently`, ask it first; then kill it. Takes a few seconds at most, whatever it does.

        Returns:
            Whether it is gone. A process that waits for a driver that hangs cannot be killed.
        """
        return self._end(Stop() if gently else None, STOP_S)

    def _kill(self) -> None:
        children = _children(self.pid)
        super()._kill()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


def _children(pid: int) -> list[psutil.Process]:
    """The processes that an engine process has started: one that hangs may wait for one of them, which does not end."""
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except (psutil.Error, OSError):
        return []
    return found
