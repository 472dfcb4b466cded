"""Thread priority, timer resolution, power saving and garbage collection, for the threads that carry frames."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from typing import Any

NICENESS = -10
HIGHEST = 2  # THREAD_PRIORITY_HIGHEST
THIS_THREAD = -2  # the pseudo handle that GetCurrentThread returns
TIMER_MS = 1

POWER_THROTTLING = 4  # ProcessPowerThrottling
EXECUTION_SPEED = 0x1
IGNORE_TIMER_RESOLUTION = 0x4
THIS_PROCESS = -1  # the pseudo handle that GetCurrentProcess returns


class _PowerThrottling(ctypes.Structure):
    """PROCESS_POWER_THROTTLING_STATE."""

    _fields_ = (("version", ctypes.c_uint32), ("control", ctypes.c_uint32), ("state", ctypes.c_uint32))


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
    """Set the timer resolution of this process to 1 ms; by default Windows rounds waits up to 15.6 ms.

    Windows 11 takes that back, and lowers the processor's clock, for programs that nobody sees: so those are refused.
    """
    if sys.platform == "win32":
        ctypes.windll.winmm.timeBeginPeriod(TIMER_MS)
        refuse_power_saving(ctypes.windll.kernel32)


def refuse_power_saving(kernel32: Any) -> bool:
    """Ask Windows not to save power at this process's cost, also while its window is minimised or covered.

    Returns:
        Whether Windows obeys. Windows 10 knows the first half only, older versions none of it.
    """
    for control in (EXECUTION_SPEED | IGNORE_TIMER_RESOLUTION, EXECUTION_SPEED):
        state = _PowerThrottling(1, control, 0)
        size = ctypes.c_uint32(ctypes.sizeof(state))
        process = ctypes.c_void_p(THIS_PROCESS)
        if kernel32.SetProcessInformation(process, POWER_THROTTLING, ctypes.byref(state), size):
            return True
    return False


def keep_objects() -> None:
    """Collect the garbage, and exempt all objects that are left from later collections.

    A collection holds every thread. Modules and models stay until the process ends, and looking at all their objects
    takes 0.1 to 0.2 s in the engine, half of that in the bridge, and several times as long on a busy machine.
    """
    gc.collect()
    gc.freeze()
