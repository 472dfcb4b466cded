"""Operators of tiles, screens and prints. Most of their textures stand still, as a screen or a sheet of paper does."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.models.ember.training.footage.marks import (
    CELL,
    blur,
    box,
    contrast,
    edges,
    grain,
    grid,
    luma,
    ramp,
    rgb_of,
    saturate,
    step,
    tiles,
    tone,
)
from engine.models.ember.training.looks.shapes import hard_terraces, shifted


def mosaic(x: Tensor) -> Tensor:
    """Glazed tiles of 8 pixels with dark joints."""
    columns, rows = grid(x)
    u, v = columns % 8, rows % 8
    glaze = saturate(tiles(x, 8), 1.5)
    lit = glaze * (1 - 0.14 * ((u == 7) | (v == 7)).to(x)) + ((u == 1) | (v == 1)).to(x) * 0.15
    inside = ((u >= 1) & (v >= 1)).to(x)
    return lit.clamp(0, 1) * inside + 0.07 * (1 - inside)


def pixel(x: Tensor) -> Tensor:
    """Flat squares of 8 pixels in the 64 colours of an early console."""
    return hard_terraces(tiles(contrast(saturate(x, 1.6), 1.2), 8), 3, 0.2)


def lowpoly(x: Tensor) -> Tensor:
    """Triangles, two to a cell, cut along the diagonal that fits the picture better."""
    columns, rows = grid(x)
    u, v = columns % CELL, rows % CELL
    fills, errors = [], []
    for side in ((u + v < CELL - 1).to(x), (u > v).to(x)):
        first = tiles(x * side, CELL) / tiles(side, CELL)
        second = tiles(x * (1 - side), CELL) / tiles(1 - side, CELL)
        fill = first * side + second * (1 - side)
        fills.append(fill * (1.06 - 0.14 * side))
        errors.append(tiles((fill - x).square().sum(1, keepdim=True), CELL))
    first_fits = torch.sigmoid((errors[1] - errors[0]) * 800)
    return saturate(fills[0] * first_fits + fills[1] * (1 - first_fits), 1.6)


def kaleidoscope(x: Tensor) -> Tensor:
    """Two mirrors through the centre of the picture: its upper left quarter four times, in strong colours."""
    x = saturate(x, 1.6)
    height, width = x.shape[-2:]
    top = x[..., : height // 2, : width // 2]
    top = torch.cat((top, top.flip(-1)), -1)
    return contrast(torch.cat((top, top.flip(-2)), -2), 1.15)


def halftone(x: Tensor) -> Tensor:
    """Printed dots on paper, larger where it is darker, in the colour of what they print."""
    columns, rows = grid(x)
    dot = torch.cos(columns * math.pi / 4) * torch.cos(rows * math.pi / 4) * 0.5 + 0.5
    printed = step(-0.14, 0.14, dot * 0.96 + 0.02 - contrast(box(luma(x), 5), 1.2))
    ink = saturate(box(x, 7), 1.8) * 0.75
    return (rgb_of(x, 0.96, 0.94, 0.88) * (1 - printed) + ink * printed).clamp(0, 1)


PERIOD = 32
"""Period in pixels of the textures of this module that do not repeat in every cell."""

_RANDOM = torch.Generator().manual_seed(3)
_SPECKS = box(torch.rand(1, 1, PERIOD, PERIOD, generator=_RANDOM).repeat(1, 1, 3, 3), 3)[
    ..., PERIOD:-PERIOD, PERIOD:-PERIOD
]
_SPECKS = ((_SPECKS - _SPECKS.mean()) / (2 * _SPECKS.std())).clamp(-1, 1)


def _dabs(spacing: int = 6) -> tuple[Tensor, Tensor]:
    """Coverage [1, 1, PERIOD, PERIOD] of the nearest dab, and its number from 0 to 1; dabs lie on a shaken grid."""
    count = PERIOD // spacing
    shake = (torch.rand(count, count, 2, generator=_RANDOM) - 0.5) * 0.7
    places = torch.stack(torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij"), -1)
    centres = (places + 0.5 + shake + torch.tensor([0.0, 0.5]) * (places[..., :1] % 2)) * (PERIOD / count)
    numbers = torch.rand(count * count, generator=_RANDOM)
    axis = torch.arange(PERIOD) + 0.5
    offset = (torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)[:, :, None] - centres.view(1, 1, -1, 2)).abs()
    distance = torch.minimum(offset % PERIOD, PERIOD - offset % PERIOD).norm(dim=-1)
    nearest, index = distance.min(-1)
    return step(3.4, 2.4, nearest)[None, None], numbers[index][None, None]


_DABS, _NUMBERS = _dabs()


def repeated(texture: Tensor, x: Tensor) -> Tensor:
    """A texture of PERIOD x PERIOD repeated over the whole picture."""
    height, width = x.shape[-2:]
    whole = texture.to(x).repeat(1, 1, -(-height // PERIOD), -(-width // PERIOD))
    return whole[..., :height, :width]


def pointillism(x: Tensor) -> Tensor:
    """Round dabs of unmixed colour on canvas: warm and cool, light and dark, that the eye mixes."""
    dab, number = repeated(_DABS, x), repeated(_NUMBERS, x)
    colour = contrast(saturate(box(x, 5), 2.2), 1.15)
    turn = number * 2 * math.pi
    warm, light = torch.cos(turn) * 0.16, torch.sin(turn * 2) * 0.12
    paint = colour * (1 + 2 * light) + light + torch.cat((warm, -0.4 * warm, -warm), 1)
    return (paint.clamp(0, 1) * dab + (1 - dab) * (0.5 * colour + 0.42)).clamp(0, 1)


def risograph(x: Tensor) -> Tensor:
    """Two fluorescent inks, printed one beside the other by three pixels, with grain, on cream paper."""
    grey = tone(x)
    speck = repeated(_SPECKS, x)
    pink = step(0.75, 0.25, box(grey, 3) + 0.22 * speck)
    blue = step(0.5, 0.15, shifted(box(grey, 3), 3, 2) - 0.2 * speck)
    paper = rgb_of(x, 0.97, 0.94, 0.86)
    return paper * (1 - pink * rgb_of(x, 0.02, 0.68, 0.42)) * (1 - blue * rgb_of(x, 0.92, 0.55, 0.18))


def glitch(x: Tensor) -> Tensor:
    """Red and blue torn eight pixels apart, blocks of wrong colour, and scan lines."""
    _, rows = grid(x)
    red, blue = shifted(x[:, :1], 8), shifted(x[:, 2:], -8)
    split = contrast(saturate(torch.cat((red, x[:, 1:2], blue), 1), 1.5), 1.3)
    band = ((rows % PERIOD) < 6).to(x)
    moved = torch.cat((shifted(x[:, 2:], 8), shifted(x[:, :1], -8), x[:, 1:2]), 1)
    torn = split * (1 - band) + contrast(moved, 1.5) * band
    block = tiles(torn, 8)
    hit = step(0.2, 0.5, block.amax(1, keepdim=True) - block.amin(1, keepdim=True))
    torn = torn * (1 - 0.6 * hit * band) + block.flip(1) * 0.6 * hit * band
    return (torn * (0.82 + 0.18 * ((rows % 4) < 2).to(x))).clamp(0, 1)


def hologram(x: Tensor) -> Tensor:
    """A cyan projection with bright rims and scan lines."""
    _, rows = grid(x)
    rim = step(0.02, 0.3, edges(x))
    body = ramp(tone(x) * 0.65 + 0.6 * rim, "00040a", "003a52", "18b8d8", "c8ffff")
    scan = 0.55 + 0.45 * (torch.cos(rows * math.pi / 2) * 0.5 + 0.5)
    return (body * scan + 0.25 * blur(rim, 7) * rgb_of(x, 0.1, 0.7, 1.0)).clamp(0, 1)


def matrix(x: Tensor) -> Tensor:
    """Green glyphs whose brightness is the picture."""
    columns, rows = grid(x)
    glyph = step(0.35, 0.65, grain(x)) * ((columns % 8) < 6) * ((rows % 8) < 7)
    light = tiles(tone(x), 8) * 1.3 * (0.2 + 0.8 * glyph)
    return ramp(light, "000200", "013d10", "18d848", "d8ffe0")


def crt(x: Tensor) -> Tensor:
    """The red, green and blue stripes of a tube, with dark lines between rows."""
    columns, rows = grid(x)
    stripe = torch.cat([((columns % 4).floor() == i).to(x) for i in (0, 1, 2)], 1)
    lines = 1 - 0.45 * ((rows % 4) >= 3).to(x)
    return (contrast(saturate(box(x, 3), 1.3), 1.1) * (0.5 + 1.1 * stripe) * lines).clamp(0, 1)
