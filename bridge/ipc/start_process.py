"""Starts a process whose end the bridge process takes care of, whatever its own terminal does.

On Windows it also ends with this process, however that ends (see `job_object`).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

from bridge.ipc import job_object
from bridge.ipc.group_signals import held_back

log = logging.getLogger(__name__)

if sys.platform == "win32":
    import _winapi
    from multiprocessing import popen_spawn_win32
    from types import SimpleNamespace
    from typing import Any

    def _in_own_group(*words: Any) -> Any:
        """`_winapi.CreateProcess`, for a process that ignores Ctrl+C from its first moment on, like all that it starts.

        multiprocessing passes no creation flags. The other way, to ignore Ctrl+C here while a process is started, lost
        what was pressed meanwhile: milliseconds, and seconds on a busy machine.
        """
        name, command, process, thread, inherit, flags, *rest = words
        flags |= subprocess.CREATE_NEW_PROCESS_GROUP
        return _winapi.CreateProcess(name, command, process, thread, inherit, flags, *rest)

    ours = SimpleNamespace(**{**vars(_winapi), "CreateProcess": _in_own_group})
    popen_spawn_win32._winapi = ours  # type: ignore[attr-defined]


def start_process(process: BaseProcess) -> None:
    """Start a process. Its main function calls `leave_to_parent`.

    Raises:
        OSError: if there are no descriptors, no memory or no processes left.
    """
    discard_broken_streams()
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # not later: it leaves SIGINT and SIGTERM unblocked in this thread
    with held_back():
        process.start()
    if sys.platform == "win32":
        try:
            job_object.job().add(process.sentinel)
        except OSError as error:  # it has ended, which its owner notices; or it ends when it sees its pipe closed
            log.warning("%s may stay if this program is ended by force: %s.", process.name, error)


def discard_broken_streams() -> None:
    """Discard what is written to standard output and error from now on if they cannot be written.

    The terminal or the program that reads them may be gone, or the disk of a log file full. Both streams are flushed
    before a process is started: what they hold back would keep every later process from starting.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            continue  # there is none, or it is closed
        except OSError as error:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
            log.error("%s cannot be written any more (%s) and is discarded.", stream.name, error)
