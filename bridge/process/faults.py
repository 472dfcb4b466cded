"""Faults that a fault drill can inject into the engine process."""

from __future__ import annotations

import enum
import os
import threading
import time
from typing import Any, assert_never

import numpy as np

from bridge.process.engine_session import EngineSession

PAUSE_S = 4.0
"""How long `Fault.PAUSE` sleeps, in s."""


MASK_FAILS = threading.Event()
"""While it is set, every person mask fails."""


class Fault(enum.StrEnum):
    """What goes wrong: sleep for ever or for `PAUSE_S`, exit at once, allocate more memory than there is, raise, have
    the next prompt run out of memory, have every person mask fail from now on, or work again."""

    HANG = "hang"
    PAUSE = "pause"
    EXIT = "exit"
    OOM = "oom"
    ERROR = "error"
    PROMPT_OOM = "prompt-oom"
    MASK = "mask"
    MASK_WORKS = "mask-works"


def inject(fault: Fault, session: EngineSession) -> None:
    """Cause a fault in this process, or in its session.

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
        case Fault.PROMPT_OOM:
            encode = session.encode_prompt

            def fail_once(text: str) -> Any:
                session.encode_prompt = encode  # type: ignore[method-assign]
                raise MemoryError("drill")

            session.encode_prompt = fail_once  # type: ignore[method-assign]
        case Fault.MASK:
            MASK_FAILS.set()
        case Fault.MASK_WORKS:
            MASK_FAILS.clear()
        case _:
            assert_never(fault)
