"""A thread that serves the show: started once, stopped idempotently, and reported when a defect ends its work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

RETRY_S = 0.1
"""Pause before a loop that raised is begun again, so that a lasting defect does not take the whole processor."""


class Service:
    """Runs `loop` on a thread of its own until `stop`.

    The loop looks at `stopping` and returns when it is set, or when its work is done. A loop that raises is a defect:
    it is logged, told once for each different text, and begun again. Subclasses may override `_run` instead of
    handing over a loop.

    Args:
        name: the thread's name, and the topic under which a defect is told.
        loop: what the thread does.
        tell: receives (topic, text) about a defect.

    Attributes:
        stopping: set by `stop`; loops wait on it.
    """

    def __init__(
        self, name: str, loop: Callable[[], None] | None = None, tell: Callable[[str, str], None] | None = None
    ) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._loop = loop
        self._tell = tell
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; does nothing while the thread runs."""
        if self._thread is not None and self._thread.is_alive():
            return
        self.stopping.clear()
        self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; idempotent. Called on the thread itself, it only asks for the end."""
        self.stopping.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join()
        self._thread = None

    def _run(self) -> None:
        if self._loop is None:
            raise NotImplementedError(f"the service {self.name} has nothing to run")
        self._loop()

    def _serve(self) -> None:
        told = ""
        while not self.stopping.is_set():
            try:
                self._run()
                return
            except Exception as error:  # the seam to every loop: a defect is said, the show goes on
                log.exception("%s failed", self.name)
                text = f"{type(error).__name__}: {error}"
                if self._tell is not None and text != told:
                    told = text
                    self._tell(self.name, text)
                self.stopping.wait(RETRY_S)
