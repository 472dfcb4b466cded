"""Ember's vocabularies: a few dozen words and their synonyms, and the embedding of prompts.

A prompt is split into words as `engine.models.vocabulary` says. Each known word or synonym becomes one row of a small
trained table, in the prompt's order. Each row of the model table has its own vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from engine.models.spec import Conditioning
from engine.models.vocabulary import Vocabulary

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
"""Every word that the network knows. Its index here is its row in the trained table, so new words go to the end."""

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
"""The vocabulary word for each synonym."""

FILLER = frozenset(
    {"a", "an", "and", "as", "at", "by", "in", "into", "it", "like", "of", "on", "or", "picture", "style", "styled"}
    | {"the", "to", "video", "with"}
)
"""Words that are ignored and not reported as unknown."""

PICTURES = Path(__file__).with_name("words.json")
"""What the pictures of the words in `words.jpg` show; `training.sheet --tiles` makes both."""

EMBER = Vocabulary(WORDS, SYNONYMS, FILLER, str(PICTURES))
"""The vocabulary of the weights in the package."""

NEW_WORDS = (
    "anime",
    "aurora",
    "charcoal",
    "glass",
    "infrared",
    "marble",
    "pointillism",
    "risograph",
    "woodblock",
    "xray",
)

NEW_SYNONYMS = {
    "cel": "anime",
    "borealis": "aurora",
    "polar": "aurora",
    "coal": "charcoal",
    "smudge": "charcoal",
    "stained": "glass",
    "vitrail": "glass",
    "cathedral": "glass",
    "aerochrome": "infrared",
    "statue": "marble",
    "carved": "marble",
    "pointillist": "pointillism",
    "seurat": "pointillism",
    "dabs": "pointillism",
    "riso": "risograph",
    "twotone": "risograph",
    "hokusai": "woodblock",
    "japanese": "woodblock",
    "ukiyo": "woodblock",
    "woodcut": "woodblock",
    "radiograph": "xray",
    "skeleton": "xray",
}

EMBER_2 = Vocabulary(
    WORDS + NEW_WORDS,
    {synonym: word for synonym, word in SYNONYMS.items() if synonym not in NEW_WORDS} | NEW_SYNONYMS,
    FILLER,
)
"""The vocabulary of the successor, which is being trained. Three words that were synonyms have a look of their own."""


class WordTable(nn.Module):
    """A table with one trained row per word; implements `engine.models.spec.TextEncoder`.

    Args:
        length: rows of an embedding; further words of a prompt are dropped and reported as unknown.
        width: width of a row.
        vocabulary: the words.
    """

    def __init__(self, length: int, width: int, vocabulary: Vocabulary = EMBER) -> None:
        super().__init__()
        self.length, self.vocabulary = length, vocabulary
        self.rows_NE = nn.Parameter(torch.empty(len(vocabulary.words), width))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Random rows of unit variance."""
        self.rows_NE.normal_(generator=generator)

    def forward(self, words: list[str]) -> Tensor:
        """Rows of these words of the vocabulary, then zeros: [length, width]. Differentiable."""
        numbers = [self.vocabulary.row(word) for word in words[: self.length]]
        indices = torch.tensor(numbers, dtype=torch.int64, device=self.rows_NE.device)
        rows = self.rows_NE[indices]
        return torch.cat((rows, rows.new_zeros(self.length - len(indices), rows.shape[1])))

    @torch.no_grad()
    def encode(self, text: str) -> Conditioning:
        """Encode one prompt; words that have no effect are listed in the result's `unknown`."""
        known, unknown = self.vocabulary.parse(text)
        dropped = known[self.length :]
        return Conditioning(text, self(known).float(), tuple(unknown + dropped))
