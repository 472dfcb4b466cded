"""A thread that serves the show: started once, stopped idempotently, and kept alive when its loop raises."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

RETRY_S = 0.1
"""Pause before a loop that raised is begun again, so that a lasting defect does not take the whole processor."""

REPORT_S = 1.0
"""Shortest time between two reports of defects: one that changes its text at every frame must not flood the log."""


class Service:
    """Runs `loop` on a thread of its own until `stop`.

    The loop looks at `stopping` and returns when it is set, or when its work is done. A loop that raises is a defect:
    it is reported and begun again. Subclasses may override `_run` instead of handing over a loop.

    Threads that do not fit, because something else ends them or calls them, are made by hand and say so.

    Args:
        name: the thread's name, and the topic under which a defect is reported.
        loop: what the thread does.
        tell: receives (topic, text) about a defect; without it a defect is only logged.
        wake: called by `stop` after `stopping` is set, for a loop that waits for something else.

    Attributes:
        stopping: set by `stop`; loops wait on it.
    """

    def __init__(
        self,
        name: str,
        loop: Callable[[], None] | None = None,
        tell: Callable[[str, str], None] | None = None,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._loop = loop
        self._tell = tell
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._reported = ""
        self._next_report_s = 0.0

    def start(self) -> None:
        """Begin; does nothing while the thread runs."""
        if self._thread is not None and self._thread.is_alive():
            return
        self.stopping.clear()
        self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """End the thread and wait for it; idempotent. Called on the thread itself, it only asks for the end."""
        self.stopping.set()
        if self._wake is not None:
            self._wake()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(timeout_s)
        if not thread.is_alive():
            self._thread = None

    def survive(self, error: Exception) -> None:
        """Report a defect that the caller goes on from: each text once, and no more than one text in `REPORT_S`."""
        text = f"{type(error).__name__}: {error}"
        if text == self._reported or time.monotonic() < self._next_report_s:
            return
        self._reported, self._next_report_s = text, time.monotonic() + REPORT_S
        log.error("%s failed", self.name, exc_info=error)
        if self._tell is not None:
            self._tell(self.name, text)

    def _run(self) -> None:
        if self._loop is None:
            raise NotImplementedError(f"the service {self.name} has nothing to run")
        self._loop()

    def _serve(self) -> None:
        while True:  # once at least: a loop may have something to finish even if it is stopped at once
            try:
                self._run()
                return
            except Exception as error:  # the seam to every loop: a defect is reported, the show goes on
                self.survive(error)
                if self.stopping.wait(RETRY_S):
                    return
