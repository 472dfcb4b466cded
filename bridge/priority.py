"""Asks the system to run the threads that carry the picture before others."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

NICENESS = -10


def prefer_this_thread() -> None:
    """Raise the calling thread's priority where the system lets us; threads that it starts inherit it.

    Only Linux has priorities by thread, and only for privileged users; everybody else goes on without.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
