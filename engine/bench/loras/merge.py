"""The time of a merge on this device at a network's true shapes: one block is merged, and all are counted.

Beside it the arithmetic of the merge: weights, operations and bytes, and the time that these bytes take at the rates of
two GPUs' memory. No GPU was measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.network.dit_shape import DiTShape
from engine.network.lora.merge import LiveMerge
from engine.network.lora.updates import Lora, Update

COLUMNS = {
    "network": "network",
    "rank": "rank",
    "weights": "weights, 1e9",
    "gflop": "GFLOP",
    "gb": "GB read and written",
    "file_mb": "LoRA, MB",
    "kept_gb": "originals kept, GB",
    "at_3350_ms": "ms at 3.35 TB/s",
    "at_1008_ms": "ms at 1.0 TB/s",
    "block_ms": "a block here, ms",
    "whole_ms": "whole merge here, ms",
    "here_gbs": "GB/s here",
}
"""Headings of the table by name of the figure."""


def matrices(shape: DiTShape) -> list[tuple[str, int, int]]:
    """The matrices of a block that LoRAs change: name, outputs, inputs."""
    d, f = shape.dim, shape.ffn
    square = [f"{which}_attn.{part}" for which in ("self", "cross") for part in "qkvo"]
    return [*((name, d, d) for name in square), ("ffn.0", f, d), ("ffn.2", d, f)]


def arithmetic(shape: DiTShape, rank: int) -> dict[str, float]:
    """What one merge of a LoRA of this rank into all blocks takes, in bfloat16."""
    weights = shape.layers * sum(outputs * inputs for _, outputs, inputs in matrices(shape))
    numbers = shape.layers * rank * sum(outputs + inputs for _, outputs, inputs in matrices(shape))
    moved = 2 * 2 * weights  # the original is read and the weight written, two bytes each
    return {
        "weights": weights / 1e9,
        "gflop": 2 * weights * rank / 1e9,
        "gb": moved / 1e9,
        "file_mb": 2 * numbers / 1e6,
        "kept_gb": 2 * weights / 1e9,
        "at_3350_ms": moved / 3350e9 * 1e3,
        "at_1008_ms": moved / 1008e9 * 1e3,
    }


def measure(
    name: str,
    shape: DiTShape,
    rank: int,
    device: torch.device,
    *,
    rounds: int = 3,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """The arithmetic of a merge, and its time on this device, from one block of true shapes in bfloat16."""
    generator = torch.Generator().manual_seed(1)
    parameters: dict[str, Tensor] = {}
    updates: dict[str, Update] = {}
    for module, outputs, inputs in matrices(shape):
        weight = torch.empty(outputs, inputs, dtype=torch.bfloat16, device=device).fill_(0.02)
        down = torch.randn(rank, inputs, generator=generator).to(device, torch.bfloat16)
        up = torch.randn(outputs, rank, generator=generator).to(device, torch.bfloat16)
        parameters[f"blocks.0.{module}.weight"] = weight
        updates[f"blocks.0.{module}.weight"] = Update(down, up, 1e-3)
    merge = LiveMerge(parameters)
    merge.load(0, Lora("random", updates, (rank,)))
    times = []
    for number in range(rounds + 1):
        merge.set((0.1 * (number + 1), *(0.0,) * 7))
        began = now()
        merge.finish()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(now() - began)
    block_s = statistics.median(times[1:])  # the first one keeps the originals
    found = arithmetic(shape, rank)
    whole_s = shape.layers * block_s
    return {
        "network": name,
        "rank": rank,
        **found,
        "block_ms": block_s * 1e3,
        "whole_ms": whole_s * 1e3,
        "here_gbs": found["gb"] / whole_s,
    }
