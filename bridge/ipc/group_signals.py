"""Signals that reach every process of the program at once: Ctrl+C in a terminal, SIGTERM of a service manager.

On Windows these are Ctrl+C, Ctrl+Break, and the events of a console that is closed, of a logoff and of a shutdown.

Only the bridge process obeys them; it ends the others in order. Without this, an engine would end first and be reported
and restarted as one that failed, and a process that is just starting would print a traceback.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator

GRACE_S = 10.0
"""How long a process that received SIGTERM waits for the bridge process to end it, in s."""

CLOSE_S = 10.0
"""How long Windows is kept from ending this process when its console is closed, in s; it waits for 5 s by default."""

CLOSING_EVENTS = {2: "the console is closed", 5: "logoff", 6: "shutdown"}
"""CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT and CTRL_SHUTDOWN_EVENT."""

_GROUP = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def obeyed(ask: Callable[[int], None]) -> Iterator[None]:
    """Have the signals ask this program to end, in the process that ends the others; call it on the main thread.

    The signals stay handled afterwards. Only Windows' closing events wait for the end of the block.

    Args:
        ask: called with the number of the signal or event; must be quick, and take no lock.
    """
    for number in _GROUP:
        signal.signal(number, lambda number, frame: ask(number))
    closing = ClosingConsole(ask)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, lambda number, frame: ask(number))
        closing.register()
    try:
        yield
    finally:
        closing.ended.set()


class ClosingConsole:
    """Handles the events after which Windows ends the process as soon as the handler returns.

    Attributes:
        ended: set it when the program has stopped all its parts.
    """

    def __init__(self, ask: Callable[[int], None]) -> None:
        self.ended = threading.Event()
        self._ask = ask

    def __call__(self, event: int) -> bool:
        """Handle one event, on a thread that Windows starts for it; returns whether it was one of these."""
        if event not in CLOSING_EVENTS:
            return False  # Ctrl+C and Ctrl+Break: Python's own handler makes signals of them
        self._ask(event)
        self.ended.wait(CLOSE_S)
        return True

    if sys.platform == "win32":

        def register(self) -> None:
            """Have Windows call this object until the process ends."""
            self._routine = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint32)(self)
            _registered.append(self._routine)
            ctypes.windll.kernel32.SetConsoleCtrlHandler(self._routine, 1)


_registered: list[object] = []
"""What Windows may call at any time, and must therefore never be freed."""


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold the signals back in this thread, and in processes that it starts until they call `leave_to_parent`.

    A signal that reaches this process meanwhile is handled by another thread, or afterwards. Nothing is done on
    Windows, where a process of a group of its own ignores Ctrl+C from its first moment (see `start_process`).
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
