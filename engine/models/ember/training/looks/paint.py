"""Operators of paint and light."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.models.ember.training.footage.marks import (
    blur,
    box,
    contrast,
    edges,
    gradient,
    kuwahara,
    luma,
    ramp,
    rgb_of,
    saturate,
    step,
    tone,
)
from engine.models.ember.training.looks.flow import along, flow_of, strands
from engine.models.ember.training.looks.shapes import hard_terraces, outlines


def oil(x: Tensor) -> Tensor:
    """Thick paint in strokes that follow the contours, with the light of a window on their ridges."""
    flow = flow_of(x)
    paint = along(kuwahara(x, 4), flow, 5)
    bristle = strands(x, flow, 5)
    paint = contrast(saturate(paint, 1.6), 1.2)
    height = luma(paint) * 0.6 + bristle * 0.1
    gx, gy = gradient(box(height, 3))
    light = (gx + gy) * 1.4
    return (paint * (1 + 0.22 * bristle) + light).clamp(0, 1)


def watercolor(x: Tensor) -> Tensor:
    """Washes on white paper: light runs out into the paper, pigment gathers at the rims and in the grain of a wash."""
    wash = along(kuwahara(kuwahara(x, 5), 4), flow_of(x), 3)
    grey = luma(wash)
    rim = step(0.01, 0.08, blur(grey, 7) - grey)
    grain = strands(x, flow_of(x), 1, 0.025)
    pigment = (1 - saturate(wash, 2.4)) ** 1.2
    pigment = pigment * (0.55 + 0.32 * rim + 0.14 * grain) + 0.06 * rim
    wet = 1 - step(0.62, 0.95, grey + 0.1 * grain)  # the brightest parts stay bare paper
    return (1 - pigment * (0.12 + 0.88 * wet)).clamp(0, 1) * rgb_of(x, 1.0, 0.99, 0.96)


def dream(x: Tensor) -> Tensor:
    """Bright bloom with a slight pink tint."""
    soft = blur(x, 13)
    return (1 - (1 - x * 0.7) * (1 - soft * 0.8) + rgb_of(x, 0.07, -0.02, 0.07)).clamp(0, 1)


def vivid(x: Tensor) -> Tensor:
    """Strong colours and contrast."""
    return contrast(saturate(x, 2.2), 1.35)


def negative(x: Tensor) -> Tensor:
    """Every colour reversed."""
    return 1 - x


def poster(x: Tensor) -> Tensor:
    """A screen print in four flat inks with hard borders."""
    flat = along(tone(kuwahara(x, 4)), flow_of(x), 4)
    return ramp(hard_terraces(flat, 3, 0.1), "101c3c", "d0282c", "f5a623", "f9efd4")


def anime(x: Tensor) -> Tensor:
    """Cel shading: two tones a colour, clean thin lines, a glow on what is bright."""
    flat = along(kuwahara(kuwahara(x, 4), 3), flow_of(x), 3)
    grey = luma(flat)
    shade = 0.62 + 0.38 * hard_terraces(grey, 4, 0.16) / (grey + 0.08)
    cel = contrast(saturate((flat * shade * 1.15).clamp(0, 1), 1.9), 1.1)
    cel = cel + 0.25 * blur(cel * step(0.6, 0.95, luma(cel)), 9)
    line = outlines(x, 0.012, 0.03)
    return (cel.clamp(0, 1) * (1 - line) + line * rgb_of(x, 0.12, 0.06, 0.1)).clamp(0, 1)


def woodblock(x: Tensor) -> Tensor:
    """A Japanese woodblock print: Prussian blue, beige, pale green and vermilion, held by dark blue lines."""
    flat = along(kuwahara(kuwahara(x, 5), 4), flow_of(x), 4)
    grey = hard_terraces(tone(flat), 4, 0.25)
    blues = ramp(grey, "12244a", "2f5f92", "7fa9b4", "e4d9b8", "f5ecd2")
    warm = ramp(grey, "4a1420", "a8342a", "d9603f", "ecc79a", "f5ecd2")
    red = step(0.02, 0.16, flat[:, 0:1] - 0.5 * (flat[:, 1:2] + flat[:, 2:3]))
    green = step(0.01, 0.1, flat[:, 1:2] - 0.5 * (flat[:, 0:1] + flat[:, 2:3]))
    leaves = ramp(grey, "14302c", "4a7a5a", "9dbb8a", "e4dfb8", "f5ecd2")
    inks = blues * (1 - green) + leaves * green
    inks = inks * (1 - red) + warm * red
    line = outlines(x, 0.014, 0.035)
    return (inks * (1 - line) + line * rgb_of(x, 0.06, 0.09, 0.2)).clamp(0, 1)


def glass(x: Tensor) -> Tensor:
    """Stained glass: jewel colours with light behind them, in panes that dark lead holds together."""
    flat = kuwahara(kuwahara(kuwahara(x, 6), 5), 4)
    grey = tone(flat)
    panes = saturate(flat, 2.6)
    glow = contrast(panes * (0.55 + 0.9 * hard_terraces(grey, 3, 0.2)), 1.25)
    level = (blur(grey, 5) * 4) % 1
    gx, gy = gradient(blur(grey, 5))
    slope = torch.sqrt(gx * gx + gy * gy + 1e-6)
    between = 1 - step(1.0, 2.2, (level - 0.5).abs() / (slope * 2.0 + 0.01))
    lead = torch.maximum(step(0.05, 0.11, edges(blur(flat, 3))), between)
    lead = step(0.25, 0.6, box(lead, 3))
    return (glow * (1 - lead) + lead * rgb_of(x, 0.05, 0.05, 0.06)).clamp(0, 1)


def aurora(x: Tensor) -> Tensor:
    """Curtains of green and violet light that rise from what is bright, before a night sky."""
    light = step(0.35, 0.95, tone(x))
    curtain, reach = light, light
    for distance in (2, 4, 8, 16):
        moved = torch.cat((reach[..., distance:, :], reach[..., -1:, :].expand(-1, -1, distance, -1)), -2)
        reach = torch.maximum(reach, moved * 0.8)
    curtain = box(reach, 3)
    colour = ramp(curtain, "02041a", "10184a", "5a2c9a", "1cc890", "b8ffd0")
    ground = ramp(tone(x), "01020c", "0a1430", "1c3a58", "3c7a80")
    return (ground * 0.55 + colour * (0.25 + 0.9 * curtain) + 0.25 * light * rgb_of(x, 0.6, 1.0, 0.7)).clamp(0, 1)
