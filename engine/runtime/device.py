"""What this computer offers: a device by name, the arithmetic that suits it, and how the process keeps its memory.

Must not know models or streams.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import torch

from engine.errors import ModelError

MAX_KEPT_BYTES = 2**30
"""Freed memory that a process with a model on a CPU keeps for itself, in bytes, at most."""

MMAP_BYTES = 2**25
"""Larger pieces of memory are the system's own, one by one, in bytes: glibc reuses them badly."""


def device_for(name: str) -> torch.device:
    """The device of that name; auto: the GPU where there is one.

    Raises:
        ModelError: if it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"There is no device {name!r}.", "Choose auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"{name} was asked for, but {torch.cuda.device_count()} GPUs can be used.", "Choose cpu.")
    return device


def dtype_for(name: str, device: torch.device) -> torch.dtype:
    """The type of that name; auto: bfloat16 where the device has units for it, else float32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" or _matrix_units() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _matrix_units() -> bool:
    """Whether the CPU has units for matmuls in bfloat16 (AMX), several times as fast as those in float32."""
    capabilities: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # since torch 2.12
    return bool(capabilities().get("amx_bf16"))


def keep_memory() -> None:
    """Let the C library keep freed memory; else every chunk gives it back, and asks for it anew, cleared page by page.

    For glibc, which gives back whatever lies beyond its threshold; others have no such setting and are left alone.
    """
    if sys.platform == "linux":
        mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(-1, MAX_KEPT_BYTES)  # M_TRIM_THRESHOLD
            mallopt(-3, MMAP_BYTES)  # M_MMAP_THRESHOLD
