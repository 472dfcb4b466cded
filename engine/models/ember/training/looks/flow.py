"""Directions in a picture: along its contours, and filters that follow them.

The marks of a brush or a pencil follow what is drawn. Filters that do so take nothing from the grid of pixels, so that
their marks move with the picture.

Pictures are [N, 3, H, W] in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.models.ember.training.footage.marks import blur, box, gradient, luma

FLAT = 4e-4
"""Strength of gradients (squared) below which a place has no direction of its own: that of its surroundings is used."""


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Unit vectors along the contours: x and y, [N, 1, H, W] each. Their sign has no meaning."""

    x: Tensor
    y: Tensor


def flow_of(picture: Tensor) -> Flow:
    """The directions of a picture's contours, from its smoothed structure tensor.

    Source: Kyprianidis and Kang, "Image and Video Abstraction by Coherence-Enhancing Filtering", 2011.
    """
    gx, gy = gradient(box(luma(picture), 3))
    tensor = torch.cat((gx * gx, gx * gy, gy * gy), 1)
    tensor = blur(tensor, 7) + 0.1 * blur(tensor, 21)
    xx, xy, yy = tensor.split(1, 1)
    # The direction of the gradient is half the angle of (xx - yy, 2 xy); the contour is perpendicular to it.
    # The constant gives flat places a direction, in a smooth way: down to the right.
    angle = 0.5 * torch.atan2(2 * xy - FLAT * 0.5, xx - yy + FLAT * 1e-2)
    return Flow(-torch.sin(angle), torch.cos(angle))


def along(value: Tensor, flow: Flow, reach: int, stride: float = 1.5) -> Tensor:
    """Mean of `value` [N, C, H, W] along the contours, `reach` samples to both sides (line integral convolution).

    Args:
        value: what to smooth.
        flow: the directions.
        reach: samples to each side.
        stride: distance of two samples in pixels.
    """
    height, width = value.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=value.device, dtype=value.dtype).view(1, height, 1)
    columns = torch.linspace(-1, 1, width, device=value.device, dtype=value.dtype).view(1, 1, width)
    home = torch.stack(torch.broadcast_tensors(columns, rows), -1)
    scale = value.new_tensor([2 * stride / max(width - 1, 1), 2 * stride / max(height - 1, 1)])
    field = torch.cat((flow.x, flow.y), 1)
    total, weights = value.clone(), 1.0
    for sign in (1.0, -1.0):
        place = home.expand(len(value), -1, -1, -1)
        step = field.permute(0, 2, 3, 1) * sign
        for number in range(1, reach + 1):
            place = place + step * scale
            weight = 1 - (number / (reach + 1)) ** 2
            total = total + weight * _sample(value, place)
            weights += weight
            if number < reach:
                new = _sample(field, place).permute(0, 2, 3, 1)
                same = (new * step).sum(-1, keepdim=True)  # directions have no sign: keep going the same way
                step = torch.where(same < 0, -new, new)
    return total / weights


def _sample(value: Tensor, place: Tensor) -> Tensor:
    return functional.grid_sample(value, place, mode="bilinear", padding_mode="border", align_corners=True)


def strands(picture: Tensor, flow: Flow, reach: int, floor: float = 0.03) -> Tensor:
    """The fine detail of a picture drawn out along its contours: about -1..1, [N, 1, H, W].

    The detail is divided by its local strength, so that weak texture gives marks too. `floor` is the strength below
    which nothing is made of it, as there is only the noise of a camera.
    """
    grey = luma(picture)
    detail = grey - blur(grey, 3)
    strength = blur(detail * detail, 9).clamp_min(0).sqrt()
    drawn = along(detail / (strength + floor), flow, reach)
    return (drawn * 1.6).clamp(-1.5, 1.5)
