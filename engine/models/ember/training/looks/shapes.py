"""Lines and flat areas: building blocks of the operators that draw.

Pictures are [N, 3, H, W] in 0..1; lines are [N, 1, H, W], 1 on the line.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.models.ember.training.footage.marks import blur, box, gradient, luma, step
from engine.models.ember.training.looks.flow import along, flow_of


def hard_terraces(value: Tensor, levels: int, soft: float) -> Tensor:
    """Quantise 0..1 to `levels` + 1 levels; `soft` is the share of a level over which it changes to the next."""
    scaled = value.clamp(0, 1) * levels
    floor = scaled.floor()
    return ((floor + step(0.5 - soft / 2, 0.5 + soft / 2, scaled - floor)) / levels).clamp(0, 1)


def outlines(picture: Tensor, low: float, high: float, wide: int = 9) -> Tensor:
    """Dark lines along the dark side of contours, drawn out along them: differences of two blurs of the luma.

    Source: Kang, Lee and Chui, "Coherent Line Drawing", 2007.

    Args:
        picture: what to draw.
        low, high: differences at which a line begins and is black.
        wide: width of the coarser blur, odd: the larger, the thicker the line.
    """
    grey = luma(picture)
    difference = blur(grey, wide) - blur(grey, 3)
    return step(low, high, along(difference, flow_of(picture), 3))


def isolines(height: Tensor, count: int, width: float) -> Tensor:
    """Lines at `count` heights of a smooth map [N, 1, H, W] in 0..1, about `width` pixels wide."""
    gx, gy = gradient(height)
    slope = torch.sqrt(gx * gx + gy * gy + 1e-7) * 0.5 * count  # levels per pixel
    distance = ((height * count) % 1 - 0.5).abs() / (slope + 0.004)
    return 1 - step(width * 0.5, width * 0.5 + 1.0, distance)


def shifted(x: Tensor, right: int, down: int = 0) -> Tensor:
    """The picture moved by whole pixels; its borders are repeated."""
    height, width = x.shape[-2:]
    far = max(abs(right), abs(down))
    wide = functional.pad(x, (far,) * 4, mode="replicate")
    return wide[..., far - down : far - down + height, far - right : far - right + width]


def relief(height: Tensor, smooth: int = 3) -> Tensor:
    """Light on a surface from the upper left: about -0.5..0.5, [N, 1, H, W]."""
    gx, gy = gradient(box(height, smooth))
    return gx + gy
