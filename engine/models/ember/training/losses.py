"""Distances between pictures, for training and evaluation."""

from __future__ import annotations

from torch import Tensor


def pixel_loss(made: Tensor, wanted: Tensor, *, border: int = 0, extra: float = 0.0) -> Tensor:
    """Mean absolute error of pixels and, weighted with 0.7, of their differences to the right and lower neighbours.

    The differences preserve edges and fine texture, which would be blurred by the error of pixels alone.

    Args:
        made, wanted: [..., H, W], of the same shape.
        border, extra: differences across the borders of blocks of `border` pixels have a weight of 1 + `extra`, against
            visible blocks; 0 for no blocks.
    """
    error = made - wanted
    along = (error[..., 1:] - error[..., :-1]).abs()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs()
    differences = along.mean() + down.mean()
    if border:
        across = along[..., border - 1 :: border].mean() + down[..., border - 1 :: border, :].mean()
        differences = differences + across * (extra / border)
    return error.abs().mean() + 0.7 * differences


def psnr(made: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, for pictures in [-1, 1]."""
    return -10 * ((made.clamp(-1, 1) - wanted).square().mean() / 4).log10()
