"""How a process keeps the memory of the pictures and tensors that it frees. Needs no torch."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

MAX_KEPT_BYTES = 2**30
"""How much freed memory, in bytes, the C library keeps at most instead of returning it to the system."""

MMAP_BYTES = 2**25
"""Allocations from this size, in bytes, are mapped one by one and unmapped when freed: glibc reuses them badly."""


def keep_memory() -> None:
    """Let the C library keep freed memory. Else it is returned and allocated again for every picture, and cleared.

    Only glibc has this setting; elsewhere nothing is done.
    """
    if sys.platform == "linux":
        mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(-1, MAX_KEPT_BYTES)  # M_TRIM_THRESHOLD
            mallopt(-3, MMAP_BYTES)  # M_MMAP_THRESHOLD
