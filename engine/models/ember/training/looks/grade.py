"""Operators of colour and light: palettes, metals, false colours and tints."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.models.ember.training.footage.marks import (
    blur,
    contrast,
    edges,
    gradient,
    hue,
    luma,
    ramp,
    rgb_of,
    step,
    tone,
)

Operator = Callable[[Tensor], Tensor]


def acid(x: Tensor) -> Tensor:
    """Running rainbow bands."""
    height = blur(tone(x), 3)
    bands = hue((height * 1.6 + 0.1) % 1) * (0.6 + 0.4 * torch.sin(height * 13))
    return (bands + step(0.1, 0.5, edges(x)) * 0.3).clamp(0, 1)


def chrome(x: Tensor) -> Tensor:
    """Polished metal."""
    height = blur(tone(x), 5)
    _, gy = gradient(height)
    return ramp(0.5 + 0.45 * torch.sin(height * 13) + gy, "05070c", "3a4656", "a8b8c8", "f8fcff")


def gold(x: Tensor) -> Tensor:
    """A relief in gold leaf."""
    height = tone(x)
    gx, gy = gradient(blur(height, 3))
    return ramp(height * 0.7 + 0.15 + 1.3 * (gx + gy), "120800", "5a3200", "b87a10", "ffd24a", "fffbe0")


def night(x: Tensor) -> Tensor:
    """Moonlight, with warm lamps where it is bright."""
    height = tone(x)
    lamps = blur(step(0.72, 0.95, height), 7) * rgb_of(x, 0.95, 0.6, 0.15)
    return (ramp(height, "02030c", "0a1840", "2a4c90", "a8c8f0") + lamps * 0.8).clamp(0, 1)


def mono(x: Tensor) -> Tensor:
    """Black and white film."""
    return contrast(luma(x), 1.4).expand(-1, 3, -1, -1)


def xray(x: Tensor) -> Tensor:
    """A medical film: dark is luminous, rims shine, flat light passes through to black."""
    grey = tone(x)
    rim = step(0.02, 0.25, edges(x))
    bone = (0.85 - grey) * 0.9 + 0.55 * rim + 0.25 * blur(rim, 9)
    return ramp(bone, "000308", "0a2436", "4d8499", "c4e6ea", "ffffff")


def infrared(x: Tensor) -> Tensor:
    """Infrared film: leaves and skin glow crimson and pink, skies turn deep teal."""
    red, green, blue = x.split(1, 1)
    leaf = (1.6 * green - 0.3 * blue - 0.1 * red + 0.25 * (red - blue)).clamp(0, 1)
    film = torch.cat((0.25 * red + 0.85 * leaf, 0.75 * red - 0.15 * leaf, 0.55 * green + 0.25 * blue), 1)
    base = ramp(tone(x), "041c24", "4c1440", "d8386c", "ffa8b8", "fff4ee")
    return contrast((0.55 * film + 0.45 * base).clamp(0, 1), 1.15)


def palette(*colours: str) -> Operator:
    """An operator that maps local brightness to a gradient."""
    return lambda x: ramp(tone(x), *colours)


def tint(colour: str) -> Operator:
    """An operator that keeps the brightness and replaces the colour."""
    return lambda x: ramp(luma(x), "000000", colour, "ffffff") * 0.88 + x * 0.12
