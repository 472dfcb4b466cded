"""The kernel of `norm_silu` in Triton. Importing this module needs Triton.

Shape letters: R positions of one program, C channels; N, B, H, W as in `norm_silu`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Elements that a program holds of one frame; with 4 warps that is 16 for each thread."""

OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
"""How the kernel is compiled."""


@triton.jit(do_not_specialize=["positions", "frames"])
def kernel(
    x,
    gamma,
    past,
    window,
    positions,
    frames,
    channels: tl.constexpr,
    width: tl.constexpr,
    rows: tl.constexpr,
    epsilon: tl.constexpr,
) -> None:
    """Take `rows` positions of the picture through all frames, in order.

    A program reads the two past frames before it overwrites them, and no other program touches its positions.

    Args:
        x, gamma, past, window: see `norm_silu.Kernel`.
        positions: of one frame: B * H * W.
        frames: new frames.
        channels: C.
        width: the power of 2 that holds the channels.
        rows: R.
        epsilon: added to mean squares.
    """
    position_R = tl.program_id(0) * rows + tl.arange(0, rows)
    channel_C = tl.arange(0, width)
    inside_RC = (position_R < positions)[:, None] & (channel_C < channels)[None, :]
    place_RC = position_R.to(tl.int64)[:, None] * channels + channel_C[None, :]
    frame_size = positions.to(tl.int64) * channels
    gain_C = tl.load(gamma + channel_C, mask=channel_C < channels, other=0.0).to(tl.float32)
    older_RC = tl.load(past + place_RC, mask=inside_RC, other=0.0)
    newer_RC = tl.load(past + frame_size + place_RC, mask=inside_RC, other=0.0)
    tl.store(window + place_RC, older_RC, mask=inside_RC)
    tl.store(window + frame_size + place_RC, newer_RC, mask=inside_RC)
    for frame in range(frames):
        x_RC = tl.load(x + frame * frame_size + place_RC, mask=inside_RC, other=0.0).to(tl.float32)
        inverse_R = 1.0 / tl.sqrt(tl.sum(x_RC * x_RC, axis=1) / channels + epsilon)
        y_RC = x_RC * inverse_R[:, None] * gain_C[None, :]
        y_RC = y_RC / (1.0 + tl.exp(-y_RC))
        older_RC = newer_RC
        newer_RC = y_RC.to(window.dtype.element_ty)
        tl.store(window + (frame + 2) * frame_size + place_RC, newer_RC, mask=inside_RC)
    tl.debug_barrier()  # all threads of the program have read the past
    tl.store(past + place_RC, older_RC, mask=inside_RC)
    tl.store(past + frame_size + place_RC, newer_RC, mask=inside_RC)


def sizes(channels: int) -> dict[str, int]:
    """The kernel's constants for a number of channels, but for `epsilon`."""
    width = 1 << (channels - 1).bit_length()
    return {"channels": channels, "width": width, "rows": max(1, BLOCK // width)}


def launch(x_NCHW: Tensor, gamma_C: Tensor, past_NCHW: Tensor, window_NCHW: Tensor, epsilon: float) -> None:
    """See `norm_silu.Kernel`."""
    for tensor in (x_NCHW, past_NCHW, window_NCHW):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    batch = past_NCHW.shape[0] // 2
    positions = batch * x_NCHW.shape[2] * x_NCHW.shape[3]
    constants = sizes(x_NCHW.shape[1])
    grid = (-(-positions // constants["rows"]),)
    kernel[grid](
        x_NCHW,
        gamma_C,
        past_NCHW,
        window_NCHW,
        positions,
        x_NCHW.shape[0] // batch,
        **constants,
        epsilon=epsilon,
        **OPTIONS,
    )
