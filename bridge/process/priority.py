"""Thread priority and timer resolution for the threads that carry frames."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading

NICENESS = -10
HIGHEST = 2  # THREAD_PRIORITY_HIGHEST
THIS_THREAD = -2  # the pseudo handle that GetCurrentThread returns
TIMER_MS = 1


def raise_thread_priority() -> None:
    """Raise the calling thread's priority if the system permits; on Linux, threads that it starts inherit it.

    Linux permits this to privileged users only, and macOS has no such call; the priority then stays as it is.
    """
    if sys.platform == "win32":
        ctypes.windll.kernel32.SetThreadPriority(ctypes.c_void_p(THIS_THREAD), HIGHEST)
    elif sys.platform.startswith("linux"):
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def fine_timers() -> None:
    """Set the timer resolution of this process to 1 ms; by default Windows rounds waits up to 15.6 ms."""
    if sys.platform == "win32":
        ctypes.windll.winmm.timeBeginPeriod(TIMER_MS)
