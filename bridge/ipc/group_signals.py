"""Signals that reach every process of the program at once: Ctrl+C in a terminal, SIGTERM of a service manager.

Only the bridge process obeys them; it ends the others in order. Without this, an engine would end first and be reported
and restarted as one that failed, and a process that is just starting would print a traceback.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

GRACE_S = 10.0
"""How long a process that received SIGTERM waits for the bridge process to end it, in s."""

_GROUP = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold the signals back in this thread, and in processes that it starts until they call `leave_to_parent`.

    A signal that reaches this process meanwhile is handled by another thread, or afterwards.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent(give_up: Callable[[], None]) -> None:
    """Ignore Ctrl+C and SIGTERM in this process; call it on the main thread, in a process that ends with its parent.

    Args:
        give_up: called `GRACE_S` after SIGTERM if the parent has not ended this process by then, as the signal was then
            meant for this process alone; must end it.
    """

    def terminate(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        timer = threading.Timer(GRACE_S, give_up)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP)
