"""Starts a process whose end the bridge process takes care of, whatever its own terminal does.

On Windows it also ends with this process, however that ends (see `job_object`).
"""

from __future__ import annotations

import logging
import os
import sys
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

from bridge.ipc import job_object
from bridge.ipc.group_signals import held_back

log = logging.getLogger(__name__)


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
