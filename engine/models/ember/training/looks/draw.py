"""Operators of lines: pen, pencil, chalk and knife."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.models.ember.training.footage.marks import (
    CELL,
    blur,
    box,
    edges,
    gradient,
    grid,
    hue,
    kuwahara,
    luma,
    ramp,
    rgb_of,
    saturate,
    step,
    tone,
)
from engine.models.ember.training.looks.flow import along, flow_of, strands
from engine.models.ember.training.looks.shapes import hard_terraces, isolines, outlines, relief


def neon(x: Tensor) -> Tensor:
    """Glowing tubes along the edges, coloured by their direction, on a dark background."""
    gx, gy = gradient(blur(luma(x), 3))
    line = step(0.03, 0.16, torch.sqrt(gx * gx + gy * gy + 1e-8))
    colour = hue((torch.atan2(gy, gx) / (2 * math.pi) + 0.85) % 1) * 0.9 + 0.1
    tube = colour * line
    return (tube * 1.1 + blur(tube, 9) * 1.1 + x * 0.14 * rgb_of(x, 0.5, 0.35, 1.0)).clamp(0, 1)


def ink(x: Tensor) -> Tensor:
    """Black brush lines and black shadows on paper."""
    line = outlines(x, 0.004, 0.022, 11)
    shadow = step(0.26, 0.14, along(box(luma(x), 5), flow_of(x), 3))
    black = torch.maximum(line, shadow)
    return (1 - black) * rgb_of(x, 0.92, 0.89, 0.82) + 0.035


def sketch(x: Tensor) -> Tensor:
    """Grey pencil strokes along the contours, on white paper."""
    flow = flow_of(x)
    grey = luma(x)
    line = ((box(grey, 3) + 0.03) / (blur(grey, 9) + 0.03)).clamp(0, 1) ** 4
    line = 1 - step(0.25, 0.9, 1 - along(line, flow, 3))
    stroke = strands(x, flow, 7, 0.012)
    shade = 1 - step(0.7, 0.0, grey) * (0.42 + 0.5 * stroke) - 0.08 * stroke
    return (0.12 + 0.88 * line * shade.clamp(0.1, 1) * rgb_of(x, 0.99, 0.98, 0.96)).clamp(0, 1)


def charcoal(x: Tensor) -> Tensor:
    """Broad black coal, smeared along the forms, on grey paper."""
    flow = flow_of(x)
    mass = along(tone(kuwahara(x, 3)), flow, 6)
    stroke = strands(x, flow, 5, 0.02)
    line = outlines(x, 0.0, 0.06, 15)
    coal = torch.maximum(step(0.25, 1.0, 1 - mass + 0.3 * stroke), 0.9 * line)
    return (1 - coal * 0.95).clamp(0, 1) * rgb_of(x, 0.9, 0.88, 0.84)


def hatch(x: Tensor) -> Tensor:
    """An engraver's crossed lines, denser where it is darker."""
    columns, rows = grid(x)
    grey = box(tone(x), 3)
    paper = torch.ones_like(grey)
    for axis, period, below in ((columns + rows, 8, 0.75), (columns - rows, 8, 0.5), (rows, 4, 0.28)):
        wave = torch.cos(axis * 2 * math.pi / period) * 0.5 + 0.5
        paper = paper * (1 - step(0, 0.25, below - grey) * step(0.35, 0.75, wave))
    return (paper * (1 - step(0.06, 0.3, edges(x))) * rgb_of(x, 0.95, 0.92, 0.84) + 0.03).clamp(0, 1)


def blueprint(x: Tensor) -> Tensor:
    """White lines on squared blue paper."""
    columns, rows = grid(x)
    ruled = ((columns % CELL == 0) | (rows % CELL == 0)).to(x) * 0.14
    line = torch.maximum(step(0.03, 0.16, edges(x)), 0.8 * outlines(x, 0.012, 0.04))
    return (rgb_of(x, 0.03, 0.15, 0.45) * (0.7 + 0.5 * luma(x)) + ruled + line * 0.85).clamp(0, 1)


def comic(x: Tensor) -> Tensor:
    """Flat loud colours inside thick ink lines; only shadows have the dots of cheap print."""
    columns, rows = grid(x)
    flat = along(kuwahara(kuwahara(x, 4), 4), flow_of(x), 3)
    grey = luma(flat)
    lit = saturate(flat * ((hard_terraces(grey, 3, 0.15) * 0.8 + 0.25) / (grey + 0.06)), 2.3).clamp(0, 1)
    dots = step(0.1, 0.5, torch.cos((columns + rows) * math.pi / 4) + torch.cos((columns - rows) * math.pi / 4) - 0.4)
    lit = lit * (1 - 0.3 * dots * step(0.42, 0.3, grey))
    line = torch.maximum(outlines(x, 0.008, 0.024, 11), step(0.13, 0.07, grey))
    return (lit * (1 - line) + 0.02).clamp(0, 1)


def chalk(x: Tensor) -> Tensor:
    """Dusty coloured chalk on a green-black board."""
    crumb = strands(x, flow_of(x), 2, 0.02)
    line = step(0.02, 0.16, edges(x)) * (0.75 + 0.3 * crumb)
    dust = 0.5 * step(0.4, 0.95, luma(x)) * step(-0.4, 0.6, crumb)
    colour = saturate(box(x, 7), 1.6) * 0.6 + 0.45
    return (rgb_of(x, 0.06, 0.12, 0.1) + (line + dust) * colour).clamp(0, 1)


def contour(x: Tensor) -> Tensor:
    """A map: flat height steps from sea to snow, each bordered by a brown line."""
    height = blur(along(tone(x), flow_of(x), 4), 5)
    ground = ramp(hard_terraces(height - 0.1, 5, 0.12), "5aa7c7", "a8d8c8", "cfe3a4", "f0dc9c", "dba877", "fbf6ee")
    line = isolines(height - 0.1, 5, 1.6)
    return (ground * (1 - line) + line * rgb_of(x, 0.36, 0.2, 0.1)).clamp(0, 1)


def emboss(x: Tensor) -> Tensor:
    """Grey relief, lit from a corner."""
    return (0.5 + 2.2 * relief(luma(x)) + 0.1 * (x - 0.5)).clamp(0, 1)


def marble(x: Tensor) -> Tensor:
    """White marble, carved as the picture is, with grey and golden veins."""
    grey = tone(x)
    height = blur(grey, 13)
    broad = isolines(height + 0.25 * (blur(luma(x), 5) - height), 3, 2.0)
    fine = isolines(blur(height, 5) + 0.15 * (blur(luma(x), 9) - height), 8, 0.3)
    cut = step(0.2, 0.04, edges(blur(x, 3)))  # no vein where the knife has cut
    stone = 0.9 + 0.24 * (blur(grey, 5) - 0.5) + 1.9 * relief(blur(luma(x), 3), 5)
    colour = stone * (1 - cut * (0.3 * box(fine, 3) + 0.25 * box(broad, 7)) * rgb_of(x, 0.85, 0.9, 1.0))
    vein = 0.7 * cut * broad
    return (colour * (1 - vein) + vein * rgb_of(x, 0.5, 0.4, 0.24)).clamp(0, 1) * rgb_of(x, 1.0, 0.985, 0.96)
