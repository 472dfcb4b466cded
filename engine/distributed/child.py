"""Runs a rank as a child process of rank 0: it ends with its parent, whatever happens to either.

The parent starts this module instead of `engine.distributed.rank`, which has the same arguments. Before it loads torch:

* On Linux the kernel is asked to kill this process when its parent ends, because a rank that is stopped (SIGSTOP), or
  that waits for a driver, cannot notice that by itself. On other systems it notices when it runs again.
* Ctrl+C and SIGTERM are ignored. They may reach every process of the program at once; rank 0 ends its ranks in order.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

PARENT = "TIDECAST_PARENT"
"""Environment variable with the parent's process id."""

GROUP_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def end_with_parent(parent: int) -> None:
    """Have this process killed when the thread that started it ends (Linux).

    Args:
        parent: process id of the parent; if it has ended already, so does this process.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def ignore_group_signals() -> None:
    """Ignore the signals, which the parent has blocked until now."""
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


def block_group_signals() -> None:
    """Block the signals in this thread and in the processes that it starts."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)


if __name__ == "__main__":
    ignore_group_signals()
    end_with_parent(int(os.environ[PARENT]))
    from engine.distributed.rank import main

    main()
