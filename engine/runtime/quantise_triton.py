"""The kernel of `quantise` in Triton: quantises a matrix in one pass. Importing this module needs Triton.

Shape letters: L tokens, I inputs, K inputs that are read at a time.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
"""How the kernel is compiled."""

BLOCK = 1024
"""K: with 4 warps, 8 numbers for each thread."""


@triton.jit
def kernel(
    x,
    x8,
    scales,
    inputs: tl.constexpr,
    block: tl.constexpr,
    float8_max: tl.constexpr,
    min_scale: tl.constexpr,
) -> None:
    """Quantise one row; the second time, it is read from the GPU's cache.

    Args:
        x: [L, I].
        x8: float8_e4m3 [L, I], written.
        scales: fp32 [L], written.
        inputs: I.
        block: K, a power of 2.
        float8_max: largest finite number of float8_e4m3.
        min_scale: lower limit of a scale.
    """
    row = tl.program_id(0)
    start = row.to(tl.int64) * inputs
    column_K = tl.arange(0, block)
    largest_K = tl.zeros((block,), tl.float32)
    for first in range(0, inputs, block):
        x_K = tl.load(x + start + first + column_K, mask=first + column_K < inputs, other=0.0).to(tl.float32)
        largest_K = tl.maximum(largest_K, tl.abs(x_K))
    scale = tl.maximum(tl.div_rn(tl.max(largest_K, axis=0), float8_max), min_scale)
    tl.store(scales + row, scale)
    for first in range(0, inputs, block):
        inside_K = first + column_K < inputs
        x_K = tl.load(x + start + first + column_K, mask=inside_K, other=0.0).to(tl.float32)
        y_K = tl.div_rn(x_K, tl.zeros((block,), tl.float32) + scale)
        tl.store(x8 + start + first + column_K, y_K.to(tl.float8e4nv), mask=inside_K)


def launch(x_LI: Tensor, float8_max: float, min_scale: float) -> tuple[Tensor, Tensor]:
    """See `quantise.to_float8`, with a scale for each row."""
    x_LI = x_LI.contiguous()
    rows, inputs = x_LI.shape
    x8_LI = torch.empty_like(x_LI, dtype=torch.float8_e4m3fn)
    scale_L1 = x_LI.new_empty((rows, 1), dtype=torch.float32)
    kernel[(rows,)](x_LI, x8_LI, scale_L1, inputs, BLOCK, float8_max, min_scale, **OPTIONS)
    return x8_LI, scale_L1
