"""The style operators: one per word of Ember's vocabulary. They produce the targets that the network is trained on.

An operator maps pictures [N, 3, H, W] in 0..1 to pictures of the same shape. It treats each frame separately and reads
a neighbourhood of about 30 pixels at most. Textures repeat on a fixed grid of 16 pixels (so H and W must be multiples
of 16): a still scene gives a still result, and a moving scene moves under its texture. Thresholds are soft, so that
camera noise causes no flicker.

Operators can be combined: `apply` orders the words of a prompt by stage (paint, draw, grade, tint), so the order in
which "blue neon sketch" is written makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from engine.models.ember.training.footage.marks import (
    CELL,
    blur,
    box,
    bristles,
    contrast,
    edges,
    gradient,
    grain,
    grid,
    hue,
    kuwahara,
    luma,
    ramp,
    rgb_of,
    saturate,
    step,
    terraces,
    tiles,
    tone,
)

Operator = Callable[[Tensor], Tensor]


class Stage(IntEnum):
    """Order in which the words of a prompt are applied."""

    PAINT = 0
    DRAW = 1
    GRADE = 2
    TINT = 3


# --- paint -----------------------------------------------------------------------------------------------------


def oil(x: Tensor) -> Tensor:
    """Thick flat paint with bright edges and brush marks."""
    paint = contrast(saturate(kuwahara(x, 5), 1.7), 1.15)
    gx, gy = gradient(luma(paint))
    marks = bristles(x)
    return (paint * (1 + 0.3 * marks) + 0.04 * marks + 0.5 * (gx + gy)).clamp(0, 1)


def watercolor(x: Tensor) -> Tensor:
    """Pale washes on grainy paper, darker where a wash ends."""
    wash = saturate(kuwahara(blur(x, 3), 5), 1.5)
    wash = 1 - (1 - wash) * 0.7
    return (wash * (1 - 0.9 * step(0.04, 0.3, edges(wash))) * (0.88 + 0.16 * grain(x))).clamp(0, 1)


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
    """A screen print in four inks."""
    return ramp(terraces(tone(kuwahara(x, 3)), 3), "16213e", "c8342b", "f0a830", "f7ecd0")


# --- draw ------------------------------------------------------------------------------------------------------


def neon(x: Tensor) -> Tensor:
    """Glowing tubes along the edges, coloured by their direction, on a dark background."""
    gx, gy = gradient(blur(luma(x), 3))
    line = step(0.03, 0.16, torch.sqrt(gx * gx + gy * gy + 1e-8))
    colour = hue((torch.atan2(gy, gx) / (2 * math.pi) + 0.85) % 1) * 0.9 + 0.1
    tube = colour * line
    return (tube * 1.1 + blur(tube, 9) * 1.1 + x * 0.14 * rgb_of(x, 0.5, 0.35, 1.0)).clamp(0, 1)


def ink(x: Tensor) -> Tensor:
    """Black brush lines and black shadows on paper."""
    grey = luma(x)
    line = step(-0.03, 0.005, blur(grey, 3) - 0.98 * blur(grey, 9))
    paper = torch.minimum(line, step(0.14, 0.26, box(grey, 5)))
    return paper * rgb_of(x, 0.9, 0.87, 0.8) + 0.04


def sketch(x: Tensor) -> Tensor:
    """Grey pencil on white paper."""
    grey = luma(x)
    line = (box(grey, 3) / (blur(grey, 11) + 0.04)).clamp(0, 1) ** 3
    shade = 0.72 + 0.28 * step(0.1, 0.5, grey + 0.2 * (grain(x) - 0.5))
    return (line * shade * rgb_of(x, 0.98, 0.97, 0.95)).clamp(0, 1)


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
    line = step(0.03, 0.16, edges(x))
    return (rgb_of(x, 0.03, 0.15, 0.45) * (0.7 + 0.5 * luma(x)) + ruled + line * 0.85).clamp(0, 1)


def comic(x: Tensor) -> Tensor:
    """Flat loud colours inside black outlines, with the dots of cheap print where it is not bright."""
    columns, rows = grid(x)
    flat = kuwahara(x, 4)
    grey = luma(flat)
    lit = saturate(flat * ((terraces(grey, 3) * 0.85 + 0.15) / (grey + 0.05)), 2.0)
    dots = step(0.0, 0.3, torch.cos((columns + rows) * math.pi / 4) + torch.cos((columns - rows) * math.pi / 4) - 0.6)
    lit = lit * (1 - 0.5 * dots * step(0.85, 0.6, grey))
    return lit.clamp(0, 1) * (1 - step(0.06, 0.17, edges(blur(x, 3))))


def chalk(x: Tensor) -> Tensor:
    """Dusty coloured chalk on a green-black board."""
    line = step(0.02, 0.2, edges(x)) * (0.45 + 0.55 * step(0.25, 0.6, grain(x)))
    dust = 0.35 * step(0.45, 0.95, luma(x)) * step(0.4, 0.8, grain(x))
    colour = saturate(box(x, 7), 1.6) * 0.6 + 0.45
    return (rgb_of(x, 0.06, 0.12, 0.1) + (line + dust) * colour).clamp(0, 1)


def contour(x: Tensor) -> Tensor:
    """A map's height lines over pale ground colours."""
    height = blur(tone(x), 7)
    gx, gy = gradient(height)
    slope = torch.sqrt(gx * gx + gy * gy + 1e-6)
    phase = (height * 4) % 1
    line = 1 - step(0.6, 1.6, (phase - 0.5).abs() / (slope * 3.0 + 0.03))
    ground = ramp(height, "8fc7d9", "cfe8c4", "f3e9bf", "e9c49a", "fbf3ea")
    return (ground * (1 - 0.85 * line)).clamp(0, 1)


def mosaic(x: Tensor) -> Tensor:
    """Glazed tiles of 8 pixels with dark joints."""
    columns, rows = grid(x)
    u, v = columns % 8, rows % 8
    glaze = saturate(tiles(x, 8), 1.5)
    lit = glaze * (1 - 0.14 * ((u == 7) | (v == 7)).to(x)) + ((u == 1) | (v == 1)).to(x) * 0.15
    inside = ((u >= 1) & (v >= 1)).to(x)
    return lit.clamp(0, 1) * inside + 0.07 * (1 - inside)


def pixel(x: Tensor) -> Tensor:
    """Squares of 8 pixels in the colours of an early computer, which mixes them by alternating squares."""
    columns, rows = grid(x)
    other = ((columns // 8 + rows // 8) % 2).to(x)
    return terraces(tiles(contrast(saturate(x, 1.5), 1.2), 8) + 0.24 * (0.5 - other), 2) * (1 - 0.18 * other)


def lowpoly(x: Tensor) -> Tensor:
    """Triangles, two to a cell."""
    columns, rows = grid(x)
    upper = ((columns % CELL) + (rows % CELL) < CELL).to(x)
    above = tiles(x * upper, CELL) / (tiles(upper, CELL) + 1e-4)
    below = tiles(x * (1 - upper), CELL) / (tiles(1 - upper, CELL) + 1e-4)
    return saturate(above * upper + below * (1 - upper), 1.6) * (0.72 + 0.28 * upper)


def emboss(x: Tensor) -> Tensor:
    """Grey relief, lit from a corner."""
    gx, gy = gradient(box(luma(x), 3))
    return (0.5 + 2.2 * (gx + gy) + 0.1 * (x - 0.5)).clamp(0, 1)


def kaleidoscope(x: Tensor) -> Tensor:
    """Every cell folded on itself eight times by mirrors, which darken every other part and shine at their edges."""
    n, c, height, width = x.shape
    half = CELL // 2
    cells = x.reshape(n, c, height // CELL, CELL, width // CELL, CELL).permute(0, 1, 2, 4, 3, 5)
    corner = cells[..., :half, :half]
    corner = (corner + corner.transpose(-1, -2)) / 2
    top = torch.cat([corner, corner.flip(-1)], -1)
    folded = torch.cat([top, top.flip(-2)], -2).permute(0, 1, 2, 4, 3, 5).reshape(n, c, height, width)
    columns, rows = grid(x)
    u, v = ((axis % CELL - half + 0.5) for axis in (columns, rows))
    turned = ((u * v > 0) ^ (u.abs() > v.abs())).to(x)
    edge = step(1.6, 0.4, torch.minimum(torch.minimum(u.abs(), v.abs()), (u.abs() - v.abs()).abs()))
    return (contrast(saturate(folded, 2.0), 1.3) * (1.15 - 0.45 * turned) + 0.3 * edge).clamp(0, 1)


# --- grade -----------------------------------------------------------------------------------------------------


def halftone(x: Tensor) -> Tensor:
    """Printed dots on paper, larger where it is darker, in the colour of what they print."""
    columns, rows = grid(x)
    dot = torch.cos(columns * math.pi / 4) * torch.cos(rows * math.pi / 4) * 0.5 + 0.5
    printed = step(-0.14, 0.14, dot * 0.96 + 0.02 - contrast(box(luma(x), 5), 1.2))
    ink = saturate(box(x, 7), 1.8) * 0.75
    return (rgb_of(x, 0.96, 0.94, 0.88) * (1 - printed) + ink * printed).clamp(0, 1)


def glitch(x: Tensor) -> Tensor:
    """Colour planes torn apart in bands, on scan lines."""
    _, rows = grid(x)

    def torn(red: int, green: int, blue: int) -> Tensor:
        planes = [torch.roll(x[:, i : i + 1], shift, -1) for i, shift in enumerate((red, green, blue))]
        return torch.cat(planes, 1)

    band = ((rows % CELL) < 6).to(x)
    split = torn(6, 0, -6) * (1 - band) + torn(-5, 5, 9) * band
    return contrast(saturate(split, 1.6), 1.25) * (0.8 + 0.2 * ((rows % 4) < 2).to(x))


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


def acid(x: Tensor) -> Tensor:
    """Running rainbow bands."""
    height = blur(tone(x), 3)
    return (
        hue((height * 1.6 + 0.1) % 1) * (0.6 + 0.4 * torch.sin(height * 13)) + step(0.1, 0.5, edges(x)) * 0.3
    ).clamp(0, 1)


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


def palette(*colours: str) -> Operator:
    """An operator that maps local brightness to a gradient."""
    return lambda x: ramp(tone(x), *colours)


# --- tint ------------------------------------------------------------------------------------------------------


def tint(colour: str) -> Operator:
    """An operator that keeps the brightness and replaces the colour."""
    return lambda x: ramp(luma(x), "000000", colour, "ffffff") * 0.88 + x * 0.12


@dataclass(frozen=True, slots=True)
class Style:
    """A word's stage and operator, and how often training draws the word (more often if it is hard to learn)."""

    stage: Stage
    operator: Operator
    weight: float = 1.0


STYLES: dict[str, Style] = {
    "oil": Style(Stage.PAINT, oil, 2.5),
    "watercolor": Style(Stage.PAINT, watercolor, 2.0),
    "dream": Style(Stage.PAINT, dream),
    "vivid": Style(Stage.PAINT, vivid),
    "negative": Style(Stage.PAINT, negative),
    "poster": Style(Stage.PAINT, poster, 2.0),
    "neon": Style(Stage.DRAW, neon, 3.0),
    "ink": Style(Stage.DRAW, ink, 2.5),
    "sketch": Style(Stage.DRAW, sketch, 2.5),
    "hatch": Style(Stage.DRAW, hatch, 2.0),
    "blueprint": Style(Stage.DRAW, blueprint, 2.0),
    "comic": Style(Stage.DRAW, comic, 3.5),
    "chalk": Style(Stage.DRAW, chalk, 2.0),
    "contour": Style(Stage.DRAW, contour, 2.5),
    "mosaic": Style(Stage.DRAW, mosaic, 2.5),
    "pixel": Style(Stage.DRAW, pixel, 2.5),
    "lowpoly": Style(Stage.DRAW, lowpoly, 2.5),
    "emboss": Style(Stage.DRAW, emboss, 1.5),
    "kaleidoscope": Style(Stage.DRAW, kaleidoscope, 3.0),
    "halftone": Style(Stage.GRADE, halftone, 2.0),
    "glitch": Style(Stage.GRADE, glitch, 3.0),
    "hologram": Style(Stage.GRADE, hologram, 1.5),
    "matrix": Style(Stage.GRADE, matrix),
    "crt": Style(Stage.GRADE, crt),
    "acid": Style(Stage.GRADE, acid, 2.5),
    "chrome": Style(Stage.GRADE, chrome, 2.0),
    "gold": Style(Stage.GRADE, gold),
    "night": Style(Stage.GRADE, night),
    "mono": Style(Stage.GRADE, mono),
    "fire": Style(Stage.GRADE, palette("000000", "4a0400", "c82800", "ff8a00", "ffe060", "fffff0")),
    "ice": Style(Stage.GRADE, palette("020818", "0a3a78", "38a0d8", "b8ecff", "ffffff")),
    "thermal": Style(Stage.GRADE, palette("08003a", "5a00a0", "d81878", "ff7a20", "ffe838", "ffffff")),
    "sunset": Style(Stage.GRADE, palette("241040", "6a2478", "c8486a", "ff9058", "ffd890")),
    "toxic": Style(Stage.GRADE, palette("040008", "28004a", "187830", "80ff20", "f0ffb0")),
    "vapor": Style(Stage.GRADE, palette("10002a", "5a18a8", "f848b8", "48d8f8", "e8ffff")),
    "ocean": Style(Stage.GRADE, palette("00101a", "00405a", "108a98", "70d8c0", "f4ffe8")),
    "forest": Style(Stage.GRADE, palette("060c04", "1c3810", "4a7a28", "a8b858", "f8f0c0")),
    "sepia": Style(Stage.GRADE, palette("140a04", "5a3a20", "b08858", "f0dcb8")),
    "red": Style(Stage.TINT, tint("e01010")),
    "orange": Style(Stage.TINT, tint("ff7a08")),
    "yellow": Style(Stage.TINT, tint("f0d800")),
    "green": Style(Stage.TINT, tint("10b828")),
    "cyan": Style(Stage.TINT, tint("08c8d8")),
    "blue": Style(Stage.TINT, tint("1840f0")),
    "purple": Style(Stage.TINT, tint("8018d8")),
    "pink": Style(Stage.TINT, tint("ff50a8")),
}
"""Every word of the vocabulary. Within a stage, words are applied in this order."""

_ORDER = {word: (style.stage, index) for index, (word, style) in enumerate(STYLES.items())}


def apply(pictures_NCHW: Tensor, words: Sequence[str]) -> Tensor:
    """Style pictures [N, 3, H, W] in 0..1 (H, W multiples of 16) by words of the vocabulary, in any order."""
    styled = pictures_NCHW
    for word in sorted(words, key=_ORDER.__getitem__):
        styled = STYLES[word].operator(styled)
        if styled.shape[1] == 1:
            styled = styled.expand(-1, 3, -1, -1)
    return styled
