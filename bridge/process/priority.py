"""Asks the system to run the threads that carry the picture before others, and to keep time finely."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading

NICENESS = -10
HIGHEST = 2  # THREAD_PRIORITY_HIGHEST
THIS_THREAD = -2  # what GetCurrentThread gives
TIMER_MS = 1


def prefer_this_thread() -> None:
    """Raise the calling thread's priority where the system lets us; on Linux threads that it starts inherit it.

    Linux lets privileged users only; macOS has no such call. Everybody else goes on without.
    """
    if sys.platform == "win32":
        ctypes.windll.kernel32.SetThreadPriority(ctypes.c_void_p(THIS_THREAD), HIGHEST)
    elif sys.platform.startswith("linux"):
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def fine_timers() -> None:
    """Let this process's waits end within a millisecond: Windows rounds them up to 15.6 ms unless it is asked."""
    if sys.platform == "win32":
        ctypes.windll.winmm.timeBeginPeriod(TIMER_MS)
