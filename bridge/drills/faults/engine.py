"""What breaks in the engine process, and at its start."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil

from bridge.drills.faults.drill import CONTROLS, Drill, wait_for
from bridge.process.faults import PAUSE_S

FADER_HZ = 50.0


def killed(drill: Drill) -> None:
    """SIGKILL."""
    psutil.Process(drill.app.supervisor.process_id).kill()


def injected(fault: str, drill: Drill) -> None:
    """A fault that the engine process causes in itself."""
    drill.app.supervisor.inject(fault)


def stops(fault: str, drill: Drill) -> None:
    """Stop the engine; returns once the stall is reported, or the engine went on before it counted as one."""
    over_ns = time.monotonic_ns() + int(PAUSE_S * 1e9)
    drill.app.supervisor.inject(fault)
    wait_for(lambda: drill.state == "stalled" or drill.recovered(over_ns), "the stall was not reported")


@contextlib.contextmanager
def fader(drill: Drill, name: str = "motion") -> Iterator[None]:
    """Move a control up and down at 50 Hz on a thread of its own; it has its old value afterwards."""
    over = threading.Event()

    def move() -> None:
        for number in itertools.count():
            drill.app.store.set(name, number % 100 / 100)
            if over.wait(1.0 / FADER_HZ):
                break
        drill.app.store.set(name, CONTROLS[name])

    thread = threading.Thread(target=move, name="fader")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def frozen_while_a_fader_moves(drill: Drill) -> None:
    """SIGSTOP: the engine takes nothing from its pipe any more, and every move of the fader is a message for it."""
    restarts = drill.app.supervisor.restarts
    with fader(drill):
        psutil.Process(drill.app.supervisor.process_id).suspend()
        wait_for(lambda: drill.app.supervisor.restarts > restarts, "the frozen engine was not replaced")


def killed_between_two_sends(drill: Drill) -> None:
    """The engine is gone while messages are on their way to it."""
    with fader(drill):
        time.sleep(0.1)
        killed(drill)
        time.sleep(0.5)


def no_descriptors(drill: Drill) -> None:
    """The engine dies, and the process has no file descriptors left for another one; a second later it has."""
    if sys.platform == "win32":
        raise NotImplementedError
    import resource

    engine, restarts = drill.app.supervisor.process_id, drill.app.supervisor.restarts
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    # Every number up to the limit is taken, so that no new descriptor fits under it.
    spare: list[Any] = []

    def taken() -> bool:
        """Take what is free: also what the death of the engine frees, before the next start could use it."""
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.open("/dev/null", os.O_RDONLY))
        return True

    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        taken()
        os.kill(engine, signal.SIGKILL)
        wait_for(lambda: taken() and drill.app.supervisor.restarts > restarts + 1, "the failed start was not counted")
        wait_for(lambda: drill.reported("could not be started") or drill.reported("Errno"), "it was not reported")
    finally:
        for descriptor in spare:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def prompt_out_of_memory(drill: Drill) -> None:
    """The text encoder runs out of memory: the prompt before goes on, and this one is tried again."""
    readings = drill.app.telemetry.snapshot
    drill.app.supervisor.inject("prompt-oom")
    drill.app.store.set("prompt_1", "gold")
    wait_for(lambda: drill.reported("MemoryError"), "it was not reported")
    wait_for(lambda: readings().get("prompt") == "gold", "the prompt was not tried again")
    drill.app.store.set("prompt_1", CONTROLS["prompt_1"])
    wait_for(lambda: readings().get("prompt") == CONTROLS["prompt_1"], "the old prompt did not come back")
