"""A thread that owns a graphics context: all functions that use the context run on it, one at a time.

It is also the seam to the library of the context: whatever a function raises becomes a `TransportError`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from bridge.video.errors import foreign_errors

T = TypeVar("T")


class GlThread:
    """Runs functions on one thread, in order, and returns their results or raises a `TransportError` in the caller.

    Not a `Service`: an exception goes to the caller, and nothing is restarted.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T]) -> T:
        """Run a function on the thread and wait for its result.

        Raises:
            TransportError: the function raised something; errors of the program stay as they are.
        """
        future: Future[T] = Future()
        self._work.put((future, work))
        with foreign_errors(f"{self._thread.name} failed", "Check the graphics driver."):
            return future.result()

    def close(self) -> None:
        """Run the functions that are still waiting and end the thread."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, work = item
            try:
                future.set_result(work())
            except BaseException as error:  # whatever it is, the caller of `do` gets it
                future.set_exception(error)
