"""The memory of a GPU while a model runs: how much is reserved, and whether Windows keeps part of it in system memory.

On Linux an allocation fails when the GPU's memory is full. On Windows the driver continues in system memory ("sysmem
fallback"): nothing fails, and every frame is many times slower. So there torch may not reserve more than is free at the
start (`forbid_spilling`). Other programs can still take memory later; `SpillWatch` notices that.
"""

from __future__ import annotations

import sys

import torch

from engine.planning.vram import GIB

SPILLS = sys.platform == "win32"
"""Whether the driver continues in system memory when the GPU's memory is full."""

FULL = 64 * 2**20
"""Bytes; with fewer free, a GPU's memory counts as full."""

CHUNKS_BETWEEN = 16
"""Chunks between two looks of `SpillWatch`; a look is a call of the driver."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, of the GPU or of the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)  # torch's allocator for the CPU raises a plain RuntimeError, on each system with other words
    return isinstance(error, RuntimeError) and ("allocate memory" in text or "not enough memory" in text)


def memory_gib(device: torch.device) -> float:
    """GPU memory that this process has reserved, with the pools of its graphs, in GiB; 0 for a CPU."""
    return torch.cuda.memory_reserved(device) / GIB if device.type == "cuda" else 0.0


def forbid_spilling(device: torch.device) -> None:
    """Where memory spills, let torch reserve no more than is free on the GPU now: it raises an error instead."""
    if SPILLS and device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, (free + own) / total), device)


class SpillWatch:
    """Notices, where memory spills, that the GPU's memory is full."""

    def __init__(self) -> None:
        self._chunks = 0
        self._full = False

    def trouble(self, device: torch.device) -> str:
        """Called once a chunk: what to tell the user, once each time the memory becomes full; else empty."""
        self._chunks += 1
        if not SPILLS or device.type != "cuda" or self._chunks % CHUNKS_BETWEEN:
            return ""
        free, total = torch.cuda.mem_get_info(device)
        was_full, self._full = self._full, free < FULL or torch.cuda.memory_reserved(device) > total - free
        if was_full or not self._full:
            return ""
        return (
            f"The memory of {device} is full ({free / GIB:.1f} of {total / GIB:.1f} GiB are free): Windows keeps part "
            "of it in system memory, which is many times slower. Close other programs that use the GPU, or choose a "
            "smaller size, autoencoder or max_steps."
        )
