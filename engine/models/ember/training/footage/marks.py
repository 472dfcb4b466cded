"""Building blocks of the style operators: blurs, edges, colour gradients, grain and grids.

Pictures are [N, 3, H, W] in 0..1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

CELL = 16
"""Period of all textures in pixels."""


def rgb_of(x: Tensor, red: float, green: float, blue: float) -> Tensor:
    """A colour as [1, 3, 1, 1], of the picture's type."""
    return x.new_tensor([red, green, blue]).view(1, 3, 1, 1)


def luma(x: Tensor) -> Tensor:
    """Rec. 601 luma, [N, 1, H, W]."""
    return (x * rgb_of(x, 0.299, 0.587, 0.114)).sum(1, keepdim=True)


def box(x: Tensor, width: int) -> Tensor:
    """Mean over a square of `width` x `width` pixels; `width` must be odd."""
    pad = width // 2
    x = functional.pad(x, (pad,) * 4, mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(x, (width, 1), 1), (1, width), 1)


def blur(x: Tensor, width: int) -> Tensor:
    """Two box filters after each other, for a smooth blur."""
    return box(box(x, width), width)


def step(low: float, high: float, x: Tensor) -> Tensor:
    """Smooth step from 0 at `low` to 1 at `high`."""
    s = ((x - low) / (high - low)).clamp(0, 1)
    return s * s * (3 - 2 * s)


def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y (twice the derivative)."""
    p = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return p[..., 1:-1, 2:] - p[..., 1:-1, :-2], p[..., 2:, 1:-1] - p[..., :-2, 1:-1]


def edges(x: Tensor, smooth: int = 3) -> Tensor:
    """Strength of luma edges, about 0..0.5."""
    gx, gy = gradient(box(luma(x), smooth))
    return torch.sqrt(gx * gx + gy * gy + 1e-8)


def saturate(x: Tensor, gain: float) -> Tensor:
    """Multiply the distance from grey by `gain`."""
    grey = luma(x)
    return (grey + (x - grey) * gain).clamp(0, 1)


def contrast(x: Tensor, gain: float) -> Tensor:
    """Multiply the distance from mid grey by `gain`."""
    return ((x - 0.5) * gain + 0.5).clamp(0, 1)


def tone(x: Tensor) -> Tensor:
    """Luma with more local contrast and a local mean closer to mid grey."""
    grey = luma(x)
    mean = blur(grey, 15)
    return ((grey - mean) * 1.4 + (mean - 0.5) * 0.9 + 0.5).clamp(0, 1)


def terraces(x: Tensor, levels: int) -> Tensor:
    """Quantise to `levels` steps, with smooth transitions."""
    scaled = x.clamp(0, 1) * levels
    floor = scaled.floor()
    return (floor + step(0.3, 0.7, scaled - floor)) / levels


def ramp(value: Tensor, *colours: str) -> Tensor:
    """Colour [N, 3, H, W] of a value [N, 1, H, W] in 0..1, on a gradient of equidistant hexadecimal colours."""
    stops = value.new_tensor([[int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)] for c in colours])
    place = value[:, 0].clamp(0, 1) * (len(colours) - 1)
    index = place.long().clamp(0, len(colours) - 2)
    part = (place - index)[..., None]
    return (stops[index] * (1 - part) + stops[index + 1] * part).permute(0, 3, 1, 2)


def hue(turn: Tensor) -> Tensor:
    """Saturated colour [N, 3, H, W] of a hue in turns (0 to 1)."""
    return ((turn * 6 + rgb_of(turn, 0.0, 4.0, 2.0)) % 6 - 3).abs().sub(1).clamp(0, 1)


def tiles(x: Tensor, width: int) -> Tensor:
    """Every tile of `width` x `width` pixels filled with its mean."""
    return functional.interpolate(functional.avg_pool2d(x, width), scale_factor=width, mode="nearest")


def grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row numbers, broadcastable to [N, 1, H, W]."""
    height, width = x.shape[-2:]
    columns = torch.arange(width, device=x.device, dtype=x.dtype).view(1, 1, 1, width)
    return columns.expand(1, 1, height, width), torch.arange(height, device=x.device, dtype=x.dtype).view(
        1, 1, height, 1
    ).expand(1, 1, height, width)


_GRAIN = torch.rand(1, 1, CELL, CELL, generator=torch.Generator().manual_seed(7))


_DRAWN = torch.stack([torch.roll(_GRAIN, (k, k), (-2, -1)) for k in range(5)]).mean(0)
_BRISTLES = (_DRAWN - _DRAWN.mean()) / (2 * _DRAWN.std())


def in_every_cell(cell: Tensor, x: Tensor) -> Tensor:
    """A texture of `CELL` x `CELL` repeated over the whole picture."""
    return cell.to(x).repeat(1, 1, x.shape[-2] // CELL, x.shape[-1] // CELL)


def grain(x: Tensor) -> Tensor:
    """The same random values 0..1 in every cell."""
    return in_every_cell(_GRAIN, x)


def bristles(x: Tensor) -> Tensor:
    """Diagonal brush marks, the same in every cell, about -1..1."""
    return in_every_cell(_BRISTLES, x)


def kuwahara(x: Tensor, radius: int) -> Tensor:
    """Kuwahara filter: mean of the four neighbouring squares, weighted by a softmax over their negative variances."""
    width = radius + 1

    def squares(y: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.pad(y, (radius,) * 4, mode="replicate"), width, 1)

    grey = luma(x)
    means, variances = squares(x), squares(grey * grey) - squares(grey) ** 2
    height, columns = x.shape[-2:]
    corners = [(row, col) for row in (0, radius) for col in (0, radius)]
    mean = torch.stack([means[..., r : r + height, c : c + columns] for r, c in corners])
    spread = torch.stack([variances[..., r : r + height, c : c + columns] for r, c in corners])
    return (mean * torch.softmax(-spread * 1500, 0)).sum(0)
