"""Every word of the successor's vocabulary with its operator.

Operators are combined as those of the shipped model are: `apply` orders the words of a prompt by stage (paint, draw,
grade, tint), so that the order in which "blue neon sketch" is written makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.models.ember.training.footage.styles import Stage
from engine.models.ember.training.looks import draw, grade, paint, pattern
from engine.models.ember.training.looks.grade import Operator, palette, tint


@dataclass(frozen=True, slots=True)
class Look:
    """One word's operator.

    Attributes:
        stage: when it is applied.
        operator: maps pictures [N, 3, H, W] in 0..1 (H, W multiples of 16) to pictures.
        weight: how often training draws the word.
        moves: whether its texture moves with the picture. Otherwise it stands still, as a screen or paper does.
    """

    stage: Stage
    operator: Operator
    weight: float = 1.0
    moves: bool = True


P, D, G, T = Stage.PAINT, Stage.DRAW, Stage.GRADE, Stage.TINT

LOOKS: dict[str, Look] = {
    "oil": Look(P, paint.oil, 2.5),
    "watercolor": Look(P, paint.watercolor, 2.0),
    "dream": Look(P, paint.dream),
    "vivid": Look(P, paint.vivid),
    "negative": Look(P, paint.negative),
    "poster": Look(P, paint.poster, 2.0),
    "anime": Look(P, paint.anime, 2.0),
    "woodblock": Look(P, paint.woodblock, 2.0),
    "glass": Look(P, paint.glass, 2.5),
    "aurora": Look(P, paint.aurora, 1.5),
    "neon": Look(D, draw.neon, 2.5),
    "ink": Look(D, draw.ink, 2.0),
    "sketch": Look(D, draw.sketch, 2.0),
    "charcoal": Look(D, draw.charcoal, 2.0),
    "hatch": Look(D, draw.hatch, 2.0, moves=False),
    "blueprint": Look(D, draw.blueprint, 1.5, moves=False),
    "comic": Look(D, draw.comic, 2.5, moves=False),
    "chalk": Look(D, draw.chalk, 1.5),
    "contour": Look(D, draw.contour, 2.0),
    "emboss": Look(D, draw.emboss),
    "marble": Look(D, draw.marble, 2.0),
    "mosaic": Look(D, pattern.mosaic, 1.5, moves=False),
    "pixel": Look(D, pattern.pixel, 1.5, moves=False),
    "lowpoly": Look(D, pattern.lowpoly, 2.0, moves=False),
    "pointillism": Look(D, pattern.pointillism, 2.0, moves=False),
    "kaleidoscope": Look(D, pattern.kaleidoscope, 1.0, moves=False),
    "halftone": Look(G, pattern.halftone, 2.0, moves=False),
    "risograph": Look(G, pattern.risograph, 1.5, moves=False),
    "glitch": Look(G, pattern.glitch, 2.0, moves=False),
    "hologram": Look(G, pattern.hologram, 1.0, moves=False),
    "matrix": Look(G, pattern.matrix, 1.0, moves=False),
    "crt": Look(G, pattern.crt, 1.0, moves=False),
    "acid": Look(G, grade.acid, 1.5),
    "chrome": Look(G, grade.chrome, 1.5),
    "gold": Look(G, grade.gold),
    "night": Look(G, grade.night),
    "mono": Look(G, grade.mono),
    "xray": Look(G, grade.xray),
    "infrared": Look(G, grade.infrared),
    "fire": Look(G, palette("000000", "4a0400", "c82800", "ff8a00", "ffe060", "fffff0")),
    "ice": Look(G, palette("020818", "0a3a78", "38a0d8", "b8ecff", "ffffff")),
    "thermal": Look(G, palette("08003a", "5a00a0", "d81878", "ff7a20", "ffe838", "ffffff")),
    "sunset": Look(G, palette("241040", "6a2478", "c8486a", "ff9058", "ffd890")),
    "toxic": Look(G, palette("040008", "28004a", "187830", "80ff20", "f0ffb0")),
    "vapor": Look(G, palette("10002a", "5a18a8", "f848b8", "48d8f8", "e8ffff")),
    "ocean": Look(G, palette("00101a", "00405a", "108a98", "70d8c0", "f4ffe8")),
    "forest": Look(G, palette("060c04", "1c3810", "4a7a28", "a8b858", "f8f0c0")),
    "sepia": Look(G, palette("140a04", "5a3a20", "b08858", "f0dcb8")),
    "red": Look(T, tint("e01010")),
    "orange": Look(T, tint("ff7a08")),
    "yellow": Look(T, tint("f0d800")),
    "green": Look(T, tint("10b828")),
    "cyan": Look(T, tint("08c8d8")),
    "blue": Look(T, tint("1840f0")),
    "purple": Look(T, tint("8018d8")),
    "pink": Look(T, tint("ff50a8")),
}
"""Every word. Within a stage, words are applied in this order."""

_ORDER = {word: (look.stage, index) for index, (word, look) in enumerate(LOOKS.items())}


def apply(pictures_NCHW: Tensor, words: Sequence[str]) -> Tensor:
    """Style pictures [N, 3, H, W] in 0..1 (H, W multiples of 16) by words of the vocabulary, in any order."""
    styled = pictures_NCHW
    for word in sorted(words, key=_ORDER.__getitem__):
        styled = LOOKS[word].operator(styled)
    return styled
