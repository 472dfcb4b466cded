"""A thread that owns a graphics context: everything that touches the context is done there, one thing at a time.

Knows nothing of what is done.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class GlThread:
    """Runs functions in one thread, in order, and hands their results and exceptions back.

    No `Service`: what fails here fails for the caller, and is not begun again.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T]) -> T:
        """Run a function there and wait for its result."""
        future: Future[T] = Future()
        self._work.put((future, work))
        return future.result()

    def close(self) -> None:
        """Do what is still waiting and end the thread."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, work = item
            try:
                future.set_result(work())
            except BaseException as error:
                # Whatever it is, it is raised again in the thread that asked.
                future.set_exception(error)
