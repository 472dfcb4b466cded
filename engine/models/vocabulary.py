"""The words of a model that takes no sentences, and the rule by which they are found in a prompt. Loads no torch.

A prompt is split into words: runs of letters and digits, in any case. A known word or a synonym of one counts, and
counts once when it is said again, as in "moonlight night". Filler words such as "a" or "style" are ignored. Every other
word is unknown. Models that take any sentence have no vocabulary.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

LONGEST_CHECKED = 4096
"""Characters of a prompt in which `Vocabulary.unknown` looks for unknown words; what follows is not looked at."""

MAX_COMPARED = 8
"""Most different unknown words of one prompt that are compared with every known word."""

LONGEST_COMPARED = 32
"""Longest unknown word that is compared, in characters."""

NEAR = 0.66
"""How alike two words must be for one to be offered instead of the other: `difflib`'s ratio, 0..1."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A word of a prompt that the model does not know.

    Attributes:
        start, end: its place in the prompt, in characters (Unicode code points).
        nearest: the known word or synonym that is spelled most like it; empty if none is near.
    """

    start: int
    end: int
    nearest: str


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What one trained network knows.

    Attributes:
        words: every word; its index is its row in the trained table.
        synonyms: the word for each synonym.
        filler: words that are ignored and not reported as unknown.
        pictures: path of a JSON file that describes pictures of the words, and lies beside a JPEG of the same name:
            `tile` (side of a picture in pixels), `columns`, and `words` in the order of the pictures, row by row. Empty
            if there are none.
    """

    words: tuple[str, ...]
    synonyms: Mapping[str, str]
    filler: frozenset[str] = frozenset()
    pictures: str = ""
    _rows: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {word: row for row, word in enumerate(self.words)})

    def row(self, word: str) -> int:
        """The row of a word in the trained table."""
        return self._rows[word]

    def synonyms_of(self, word: str) -> tuple[str, ...]:
        """The synonyms of a word."""
        return tuple(synonym for synonym, meant in self.synonyms.items() if meant == word)

    def parse(self, prompt: str) -> tuple[list[str], list[str]]:
        """The known words of a prompt (synonyms resolved, each once) and its unknown words, in the prompt's order."""
        known: list[str] = []
        unknown: list[str] = []
        for _, said, word in self._found(prompt):
            if word:
                known.append(word)
            else:
                unknown.append(said)
        return list(dict.fromkeys(known)), unknown

    def unknown(self, prompt: str) -> tuple[Unknown, ...]:
        """The unknown words of a prompt with their places and the nearest known words.

        The work is bounded: what lies behind `LONGEST_CHECKED` characters is not looked at, and after the first
        `MAX_COMPARED` words that differ no nearest word is looked for.
        """
        found: list[Unknown] = []
        nearest: dict[str, str] = {}
        for place, said, word in self._found(prompt[:LONGEST_CHECKED]):
            if word:
                continue
            if said not in nearest and len(nearest) < MAX_COMPARED:
                nearest[said] = self._nearest(said)
            found.append(Unknown(place.start(), place.end(), nearest.get(said, "")))
        return tuple(found)

    def _found(self, prompt: str) -> Iterator[tuple[re.Match[str], str, str]]:
        """Every word of a prompt but fillers: its place, how it was said, the known word that it means, or empty."""
        for place in _WORD.finditer(prompt):
            said = place[0].lower()
            word = self.synonyms.get(said, said)
            if word in self._rows:
                yield place, said, word
            elif said not in self.filler:
                yield place, said, ""

    def _nearest(self, said: str) -> str:
        if len(said) > LONGEST_COMPARED:
            return ""
        return next(iter(difflib.get_close_matches(said, [*self.words, *self.synonyms], n=1, cutoff=NEAR)), "")
