"""A background thread that is restarted when its loop raises; `start` and `stop` are idempotent."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

RETRY_S = 0.1
"""Pause before a loop that raised is run again, so that a lasting defect does not use a whole core."""

REPORT_S = 1.0
"""Shortest time between two reports of defects: one whose text differs at every frame must not flood the log."""


class Service:
    """Runs `loop` on a thread of its own until `stop`.

    The loop checks `stopping` and returns when it is set, or when its work is done. An exception from the loop is a
    defect: it is reported and the loop is run again, whatever it is: libraries in Rust raise what is no `Exception`.
    Subclasses may override `_run` instead of passing a loop.

    Threads that end by themselves, or whose exceptions go to a caller, do not use this class; their docstrings say why.

    Args:
        name: the thread's name, and the topic under which a defect is reported.
        loop: what the thread does.
        tell: called with (topic, text) when a defect occurs; without it a defect is only logged.
        wake: called by `stop` after `stopping` is set, for a loop that waits for something else than `stopping`.

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
        """Start the thread; does nothing while it runs.

        Raises:
            RuntimeError: if the system has no thread to give.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        self.stopping.clear()
        thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        thread.start()
        self._thread = thread

    def stop(self, timeout_s: float | None = None) -> bool:
        """Stop the thread and wait for it to end; idempotent. Called on the thread itself, it does not wait.

        Returns:
            Whether the thread has ended.
        """
        self.stopping.set()
        if self._wake is not None:
            self._wake()
        thread = self._thread
        if thread is None:
            return True
        if thread is threading.current_thread():
            return False
        thread.join(timeout_s)
        if thread.is_alive():
            return False
        self._thread = None
        return True

    def report_defect(self, error: BaseException) -> None:
        """Log and tell an exception after which the caller goes on: never the same text twice in a row, and at most
        one report in `REPORT_S`."""
        text = f"{type(error).__name__}: {error}"
        if text == self._reported or time.monotonic() < self._next_report_s:
            return
        self._reported, self._next_report_s = text, time.monotonic() + REPORT_S
        log.error("%s failed", self.name, exc_info=error)
        if self._tell is not None:
            try:
                self._tell(self.name, text)
            except Exception:  # what is told of a defect must not be the next one
                log.exception("%s could not be reported", text)

    def _run(self) -> None:
        if self._loop is None:
            raise NotImplementedError(f"the service {self.name} has nothing to run")
        self._loop()

    def _serve(self) -> None:
        while True:  # at least once: a loop may have something to finish even when it is stopped immediately
            try:
                self._run()
                return
            except BaseException as error:  # whatever a loop raises, the program goes on
                with contextlib.suppress(MemoryError):  # then there is nothing left to report it with
                    self.report_defect(error)
                if self.stopping.wait(RETRY_S):
                    return
