"""What the network is told to draw: a weighted blend of prompts that travels to the next one.

A blend is made of embeddings, row by row, on the arc between them or on the straight line; a change of the blend
travels there in stream time (the frames' own times). Must not know text encoders, networks or clocks.

Shape letters: L tokens, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Blend = Callable[[Tensor, Tensor, float], Tensor]
"""(from [L, E], to [L, E], share of the latter) to [L, E]."""


def linear(a_LE: Tensor, b_LE: Tensor, share: float) -> Tensor:
    """On the straight line."""
    return torch.lerp(a_LE, b_LE, share)


def slerp(a_LE: Tensor, b_LE: Tensor, share: float) -> Tensor:
    """Row by row on the arc: the direction turns evenly, the length changes evenly.

    A row that is zero on one side (one prompt is longer) has no direction there and goes on the straight line, as
    do rows that point the same way or opposite ways.
    """
    a_norm, b_norm = a_LE.norm(dim=-1, keepdim=True), b_LE.norm(dim=-1, keepdim=True)
    a_unit, b_unit = a_LE / a_norm.clamp(min=1e-12), b_LE / b_norm.clamp(min=1e-12)
    cosine = (a_unit * b_unit).sum(dim=-1, keepdim=True)
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    sine = torch.sin(angle)
    flat = (a_norm < 1e-6) | (b_norm < 1e-6) | (sine < 1e-3)
    safe = torch.where(flat, 1.0, sine)
    unit = (torch.sin((1 - share) * angle) * a_unit + torch.sin(share * angle) * b_unit) / safe
    return torch.where(flat, torch.lerp(a_LE, b_LE, share), unit * torch.lerp(a_norm, b_norm, share))


BLENDS: dict[str, Blend] = {"slerp": slerp, "linear": linear}


def blended(parts: Sequence[tuple[Tensor, float]], blend: Blend) -> Tensor:
    """Embeddings with shares that sum to 1, taken together one after the other."""
    (total, weight), *others = parts
    for embedding, share in others:
        weight += share
        total = blend(total, embedding, share / weight)
    return total


class Travel:
    """The embedding in force, on its way to the one that is wanted. Time is the stream's: the frames' own."""

    def __init__(self, blend: Blend) -> None:
        self._blend = blend
        self._from: Tensor | None = None
        self._to: Tensor | None = None
        self._seconds = 0.0
        self._elapsed = 0.0
        self._last: float | None = None
        self._resting = True

    def aim(self, target_LE: Tensor, seconds: float) -> None:
        """Set out for another embedding, from wherever this one is now; the very first is in force at once."""
        self._from, self._to = self._here(), target_LE
        self._seconds = seconds if self._from is not None else 0.0
        self._elapsed, self._resting = 0.0, False

    def advance(self, now: float) -> Tensor | None:
        """Go on to this time in s: the embedding there, or None if it is the one before.

        Frames that all bear the same time know no travel: a change is in force at once. Time that jumps back
        (another source) counts as none.
        """
        passed = None if self._last is None else now - self._last
        self._last = now
        if self._resting:
            return None
        if passed is None or passed == 0.0:
            self._elapsed = self._seconds
        else:
            self._elapsed += max(passed, 0.0)
        self._resting = self._elapsed >= self._seconds
        return self._here()

    def _here(self) -> Tensor | None:
        if self._from is None or self._to is None or self._elapsed >= self._seconds:
            return self._to
        return self._blend(self._from, self._to, self._elapsed / self._seconds)
