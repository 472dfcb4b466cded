"""Priority of threads that carry frames, and of their session; timer resolution, power saving, garbage collection."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NICENESS = -10
HIGHEST = 2  # THREAD_PRIORITY_HIGHEST
THIS_THREAD = -2  # the pseudo handle that GetCurrentThread returns
TIMER_MS = 1

SESSION = Path("/proc/self/autogroup")
"""On Linux: the priority of the session that this process belongs to, such as `/autogroup-17 nice 0`."""

BY_SESSION = Path("/proc/sys/kernel/sched_autogroup_enabled")
"""On Linux: whether sessions share the processor, and threads only what their session gets; 1 on most desktops."""

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


@contextlib.contextmanager
def raised_session() -> Iterator[bool]:
    """Raise the priority of this process's session while it runs, where Linux shares the processor by sessions.

    There the priority of a thread counts only within its session. Beside other busy sessions, threads that carry frames
    were not woken for up to 2.8 s. Linux permits it to privileged users only; else nothing changes, and
    `scheduled_by_session` says whether that matters.

    Yields:
        Whether the priority is raised.
    """
    try:
        before = SESSION.read_text().split()[-1]
        SESSION.write_text(str(NICENESS))
    except (OSError, IndexError):
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            SESSION.write_text(before)


def scheduled_by_session() -> bool:
    """Whether Linux shares the processor by sessions, so that `raised_session` is needed."""
    try:
        return BY_SESSION.read_text().strip() == "1"
    except OSError:
        return False


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
