"""The embedding of Ember's prompts: each known word or synonym becomes one row of a small trained table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.models.ember.vocabulary import EMBER
from engine.models.spec import Conditioning
from engine.models.vocabulary import Vocabulary


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
