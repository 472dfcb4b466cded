"""Ember's language: a few dozen words, their synonyms, and how a prompt becomes embedding rows.

A prompt is cut into words; each known word (or synonym) gives one row of a small trained table, in the order of
writing. Filler such as "a" or "style" is passed over, every other word is reported as unknown. Knows nothing of
what the words look like: that is what the network was trained for.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from engine.models.spec import Conditioning

WORDS: tuple[str, ...] = (
    "oil",
    "watercolor",
    "dream",
    "vivid",
    "negative",
    "poster",
    "neon",
    "ink",
    "sketch",
    "hatch",
    "blueprint",
    "comic",
    "chalk",
    "contour",
    "mosaic",
    "pixel",
    "lowpoly",
    "emboss",
    "kaleidoscope",
    "halftone",
    "glitch",
    "hologram",
    "matrix",
    "crt",
    "acid",
    "chrome",
    "gold",
    "night",
    "mono",
    "fire",
    "ice",
    "thermal",
    "sunset",
    "toxic",
    "vapor",
    "ocean",
    "forest",
    "sepia",
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
)
"""Every word that the network knows; the place in this row is the place in the table, so only append."""

SYNONYMS: dict[str, str] = {
    "painting": "oil",
    "painted": "oil",
    "impasto": "oil",
    "aquarelle": "watercolor",
    "watercolour": "watercolor",
    "wash": "watercolor",
    "soft": "dream",
    "bloom": "dream",
    "dreamy": "dream",
    "haze": "dream",
    "saturated": "vivid",
    "colorful": "vivid",
    "colourful": "vivid",
    "bright": "vivid",
    "invert": "negative",
    "inverted": "negative",
    "xray": "negative",
    "flat": "poster",
    "posterize": "poster",
    "popart": "poster",
    "glow": "neon",
    "glowing": "neon",
    "edges": "neon",
    "lines": "ink",
    "brush": "ink",
    "manga": "ink",
    "pencil": "sketch",
    "drawing": "sketch",
    "graphite": "sketch",
    "engraving": "hatch",
    "hatching": "hatch",
    "etching": "hatch",
    "banknote": "hatch",
    "plan": "blueprint",
    "technical": "blueprint",
    "cartoon": "comic",
    "anime": "comic",
    "toon": "comic",
    "blackboard": "chalk",
    "chalkboard": "chalk",
    "map": "contour",
    "topographic": "contour",
    "tiles": "mosaic",
    "tile": "mosaic",
    "ceramic": "mosaic",
    "pixels": "pixel",
    "8bit": "pixel",
    "retro": "pixel",
    "polygons": "lowpoly",
    "triangles": "lowpoly",
    "relief": "emboss",
    "embossed": "emboss",
    "stone": "emboss",
    "mirrors": "kaleidoscope",
    "mandala": "kaleidoscope",
    "dots": "halftone",
    "newspaper": "halftone",
    "print": "halftone",
    "broken": "glitch",
    "vhs": "glitch",
    "holographic": "hologram",
    "projection": "hologram",
    "code": "matrix",
    "hacker": "matrix",
    "tv": "crt",
    "screen": "crt",
    "psychedelic": "acid",
    "rainbow": "acid",
    "trippy": "acid",
    "metal": "chrome",
    "silver": "chrome",
    "steel": "chrome",
    "golden": "gold",
    "bronze": "gold",
    "moonlight": "night",
    "midnight": "night",
    "dark": "night",
    "monochrome": "mono",
    "noir": "mono",
    "gray": "mono",
    "grey": "mono",
    "lava": "fire",
    "flames": "fire",
    "hot": "fire",
    "frozen": "ice",
    "frost": "ice",
    "cold": "ice",
    "snow": "ice",
    "heat": "thermal",
    "infrared": "thermal",
    "dusk": "sunset",
    "dawn": "sunset",
    "acidic": "toxic",
    "poison": "toxic",
    "radioactive": "toxic",
    "vaporwave": "vapor",
    "synthwave": "vapor",
    "retrowave": "vapor",
    "sea": "ocean",
    "underwater": "ocean",
    "water": "ocean",
    "jungle": "forest",
    "moss": "forest",
    "nature": "forest",
    "vintage": "sepia",
    "old": "sepia",
    "antique": "sepia",
    "crimson": "red",
    "scarlet": "red",
    "amber": "orange",
    "lemon": "yellow",
    "lime": "green",
    "emerald": "green",
    "turquoise": "cyan",
    "teal": "cyan",
    "azure": "blue",
    "navy": "blue",
    "violet": "purple",
    "magenta": "pink",
    "rose": "pink",
}
"""What else may be written for a word."""

FILLER = frozenset(
    {"a", "an", "and", "as", "at", "by", "in", "into", "it", "like", "of", "on", "or", "picture", "style", "styled"}
    | {"the", "to", "video", "with"}
)
"""Words without a meaning here; they are passed over and not reported."""

_WORD = re.compile(r"[^\W_]+")


def parse(prompt: str) -> tuple[list[str], list[str]]:
    """Split a prompt into words of the vocabulary (synonyms resolved) and unknown words, both in order."""
    known: list[str] = []
    unknown: list[str] = []
    for token in _WORD.findall(prompt.lower()):
        word = SYNONYMS.get(token, token)
        if word in _INDEX:
            known.append(word)
        elif token not in FILLER:
            unknown.append(token)
    return known, unknown


_INDEX = {word: place for place, word in enumerate(WORDS)}


class WordTable(nn.Module):
    """One trained row per word; encodes prompts (`engine.models.spec.TextEncoder`).

    Args:
        length: rows of a conditioning; words beyond it are reported as unknown.
        width: width of a row.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.length = length
        self.rows_NE = nn.Parameter(torch.empty(len(WORDS), width))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Random rows of unit variance."""
        self.rows_NE.normal_(generator=generator)

    def forward(self, words: list[str]) -> Tensor:
        """Rows of known words, zeros after the last: [length, width]. Differentiable."""
        places = torch.tensor([_INDEX[w] for w in words[: self.length]], dtype=torch.int64, device=self.rows_NE.device)
        rows = self.rows_NE[places]
        return torch.cat((rows, rows.new_zeros(self.length - len(places), rows.shape[1])))

    @torch.no_grad()
    def encode(self, text: str) -> Conditioning:
        """Encode one prompt; words that do not count are named in the result's `unknown`."""
        known, unknown = parse(text)
        surplus = known[self.length :]
        return Conditioning(text, self(known).float(), tuple(unknown + surplus))
