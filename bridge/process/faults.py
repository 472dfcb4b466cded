"""Faults that a fault drill can inject into the engine process."""

from __future__ import annotations

import enum
import os
import time
from typing import assert_never

import numpy as np

PAUSE_S = 4.0
"""How long `Fault.PAUSE` sleeps, in s."""


class Fault(enum.StrEnum):
    """What goes wrong: sleep for ever or for `PAUSE_S`, exit at once, allocate more memory than there is, raise."""

    HANG = "hang"
    PAUSE = "pause"
    EXIT = "exit"
    OOM = "oom"
    ERROR = "error"


def inject(fault: Fault) -> None:
    """Cause a fault in this process.

    Raises:
        MemoryError: for `Fault.OOM`.
        RuntimeError: for `Fault.ERROR`.
    """
    match fault:
        case Fault.HANG:
            time.sleep(1e6)
        case Fault.PAUSE:
            time.sleep(PAUSE_S)
        case Fault.EXIT:
            os._exit(3)
        case Fault.OOM:
            np.ones(1 << 50)  # 8 PiB: the allocation itself fails
        case Fault.ERROR:
            raise RuntimeError("drill")
        case _:
            assert_never(fault)
