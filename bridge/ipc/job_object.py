"""A Windows job object: the processes in it end with this one, however this one ends.

A process that is ended by the Task Manager, by `TerminateProcess` or by a crash tells nobody. Its children notice by
the pipe, as on other systems, but only while they run: one that hangs in a driver would stay, and keep its memory and
the GPU's. When the last handle of a job is closed, Windows ends every process in it, and what those have started.

This process itself is not in the job: programs that it opens for the user, such as the browser, stay.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

KILL_ON_JOB_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation


class _BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("process_user_time", ctypes.c_int64),
        ("job_user_time", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("smallest_working_set", ctypes.c_size_t),
        ("largest_working_set", ctypes.c_size_t),
        ("most_processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority_class", ctypes.c_uint32),
        ("scheduling_class", ctypes.c_uint32),
    )


class _ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("basic", _BasicLimits),
        ("transfers", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


class Job:
    """A job object. Its handle is never closed by the program and not inherited: Windows closes it at the end.

    Args:
        kernel32: the library, with `use_last_error`.

    Raises:
        OSError: Windows gives no job object.
    """

    def __init__(self, kernel32: Any) -> None:
        self._kernel32 = kernel32
        kernel32.CreateJobObjectW.restype = ctypes.c_void_p
        handle = kernel32.CreateJobObjectW(None, None)
        if not handle:
            raise _error("CreateJobObject")
        self._handle = ctypes.c_void_p(handle)
        limits = _ExtendedLimits()
        limits.basic.flags = KILL_ON_JOB_CLOSE
        size = ctypes.c_uint32(ctypes.sizeof(limits))
        if not kernel32.SetInformationJobObject(self._handle, EXTENDED_LIMITS, ctypes.byref(limits), size):
            raise _error("SetInformationJobObject")

    def add(self, process: int) -> None:
        """Put the process with this handle into the job; what it starts from now on is in it, too.

        Raises:
            OSError: the process has ended, or belongs to a job that forbids it (before Windows 8).
        """
        if not self._kernel32.AssignProcessToJobObject(self._handle, ctypes.c_void_p(process)):
            raise _error("AssignProcessToJobObject")


def _error(call: str) -> OSError:
    number = 0
    if sys.platform == "win32":
        number = ctypes.get_last_error()
    return OSError(0, f"{call} failed: Windows error {number}")


@functools.cache
def job() -> Job:
    """The job of the processes that this one starts. Windows only.

    Raises:
        OSError: see `Job`.
    """
    if sys.platform != "win32":
        raise OSError("job objects exist on Windows only")
    return Job(ctypes.WinDLL("kernel32", use_last_error=True))
