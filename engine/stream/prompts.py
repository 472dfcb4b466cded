"""What the network is told to draw: a weighted blend of prompts that travels to the next one.

A blend is made of embeddings, row by row, on the arc between them or on the straight line; a change of the blend
travels there in stream time (the frames' own times). Must not know networks or clocks.

Shape letters: X tokens, E width of an embedding.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.errors import ModelError
from engine.models.spec import Conditioning, TextEncoder

MAX_CACHED = 64
"""Encoded prompts that are kept in memory; the longest unused is forgotten first."""

Blend = Callable[[Tensor, Tensor, float], Tensor]
"""(from [X, E], to [X, E], share of the latter) to [X, E]."""


def linear(a_XE: Tensor, b_XE: Tensor, share: float) -> Tensor:
    """On the straight line."""
    return torch.lerp(a_XE, b_XE, share)


def slerp(a_XE: Tensor, b_XE: Tensor, share: float) -> Tensor:
    """Row by row on the arc: the direction turns evenly, the length changes evenly.

    A row that is zero on one side (one prompt is longer) has no direction there and goes on the straight line, as
    do rows that point the same way or opposite ways.
    """
    a_norm, b_norm = a_XE.norm(dim=-1, keepdim=True), b_XE.norm(dim=-1, keepdim=True)
    a_unit, b_unit = a_XE / a_norm.clamp(min=1e-12), b_XE / b_norm.clamp(min=1e-12)
    cosine = (a_unit * b_unit).sum(dim=-1, keepdim=True)
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    sine = torch.sin(angle)
    flat = (a_norm < 1e-6) | (b_norm < 1e-6) | (sine < 1e-3)
    safe = torch.where(flat, 1.0, sine)
    unit = (torch.sin((1 - share) * angle) * a_unit + torch.sin(share * angle) * b_unit) / safe
    return torch.where(flat, torch.lerp(a_XE, b_XE, share), unit * torch.lerp(a_norm, b_norm, share))


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

    def set_target(self, target_XE: Tensor, seconds: float) -> None:
        """Move from the embedding in force to another within so many seconds; the very first is in force at once."""
        self._from, self._to = self.current(), target_XE
        self._seconds = seconds if self._from is not None else 0.0
        self._elapsed, self._resting = 0.0, False

    def advance(self, now: float) -> Tensor | None:
        """The embedding in force at this time in s, or None if it is still the one before.

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
        return self.current()

    def current(self) -> Tensor | None:
        """The embedding in force; None before the first."""
        if self._from is None or self._to is None or self._elapsed >= self._seconds:
            return self._to
        return self._blend(self._from, self._to, self._elapsed / self._seconds)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a chunk."""
        named = {"from": self._from, "to": self._to}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def facts(self) -> dict[str, float | bool | None]:
        """The rest of what outlives a chunk."""
        return {"seconds": self._seconds, "elapsed": self._elapsed, "last": self._last, "resting": self._resting}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Become what `tensors` and `facts` were taken from."""
        self._from, self._to = tensors.get("from"), tensors.get("to")
        self._seconds, self._elapsed = facts["seconds"], facts["elapsed"]
        self._last, self._resting = facts["last"], facts["resting"]


class Prompts:
    """Prompts as the stream wants them: encoded once, remembered, blended, on their way.

    Args:
        encoder: may be slow; it is asked from one thread at a time.
        blend: how two embeddings are taken together.
        device: where embeddings are kept and blended.
        defer: leave the encoding of new texts to whoever reads `missing`, and go on with what is in force.
    """

    def __init__(
        self, encoder: TextEncoder, blend: Blend, *, device: torch.device | str = "cpu", defer: bool = False
    ) -> None:
        self._encoder, self._blend, self._device, self._defer = encoder, blend, device, defer
        self._known: OrderedDict[str, Conditioning] = OrderedDict()
        self._memory_lock, self._encoder_lock = threading.Lock(), threading.Lock()
        self.travel = Travel(blend)
        self.target: tuple[tuple[str, float], ...] = ()
        self.unknown: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self._failed = False

    def encode(self, text: str) -> Conditioning:
        """One prompt's embedding, remembered. May be called from any thread."""
        with self._encoder_lock:
            found = self._recall(text)
            if found is None:
                found = self._encoder.encode(text)
                found = replace(found, embedding=found.embedding.to(self._device))
                with self._memory_lock:
                    self._known[text] = found
                    while len(self._known) > MAX_CACHED:
                        self._known.popitem(last=False)
            return found

    def update(self, wanted: tuple[tuple[str, float], ...], seconds: float, now: float) -> Tensor | None:
        """Follow the wanted (text, share)s at this stream time: a new embedding [X, E], or None for no change."""
        self.missing = ()
        if wanted != self.target:
            found = {text: self._recall(text) for text, _ in wanted}
            self.missing = tuple(text for text, known in found.items() if known is None)
            if self.missing and not (self._defer and (self.target or self._failed)):
                found |= self._encode_now()
            if not self.missing:
                parts = [(known, share) for (text, share) in wanted if (known := found[text]) is not None]
                self.travel.set_target(
                    blended([(c.embedding.float(), share) for c, share in parts], self._blend), seconds
                )
                self.unknown = tuple(dict.fromkeys(word for c, _ in parts for word in c.unknown))
                self.target = wanted
        return self.travel.advance(now)

    def _encode_now(self) -> dict[str, Conditioning | None]:
        """Encode what is missing. Where others may encode too, the first failure leaves it to them for good."""
        try:
            found: dict[str, Conditioning | None] = {text: self.encode(text) for text in self.missing}
        except ModelError:
            if not self._defer:
                raise
            self._failed = True
            return {}
        self.missing = ()
        return found

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What is in force and on its way: tensors by name, and the rest as JSON takes it."""
        return self.travel.tensors(), {"travel": self.travel.facts(), "target": self.target, "unknown": self.unknown}

    def restore(self, saved: tuple[dict[str, Tensor], dict[str, Any]]) -> None:
        """Become what `save` was taken from."""
        tensors, facts = saved
        self.travel.restore(tensors, facts["travel"])
        self.target = tuple((text, share) for text, share in facts["target"])
        self.unknown = tuple(facts["unknown"])

    def describe(self) -> str:
        """What is in force or on its way, for people."""
        if len(self.target) <= 1:
            return self.target[0][0] if self.target else ""
        return " + ".join(f"{share:.0%} {text}" for text, share in self.target)

    def _recall(self, text: str) -> Conditioning | None:
        with self._memory_lock:
            found = self._known.get(text)
            if found is not None:
                self._known.move_to_end(text)
            return found
