"""Prompts: encoding, weighted blends, and gradual changes from one blend to the next.

Embeddings are blended token by token, as spherical (slerp) or linear means. A new blend does not replace the
old one at once: the embedding is interpolated between them over some seconds (*travel*). Time is taken from the frames'
timestamps.

Shape letters: X tokens, E width of an embedding.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.models.spec import Conditioning, TextEncoder
from engine.runtime.transfers import PendingCopy, transfers

MAX_CACHED = 64
"""Number of encoded prompts kept in memory; the least recently used one is dropped first."""

Parts = Sequence[tuple[Tensor, float]]
"""Embeddings [X, E] and their shares, which sum to 1."""

Blend = Callable[[Parts], Tensor]
"""Blends any number of embeddings."""

REFINEMENTS = 4
"""Corrections of a spherical mean of more than two; from the third on they are below 1 % of its angles."""


def linear(parts: Sequence[tuple[Tensor, float | Tensor]]) -> Tensor:
    """The weighted mean. A share may be one for each token, [X, 1]."""
    return sum((embedding * share for embedding, share in parts[1:]), parts[0][0] * parts[0][1])


def slerp(parts: Parts) -> Tensor:
    """The spherical mean of each token: directions on the sphere, lengths linearly, in whatever order the parts are.

    With two parts it is their spherical interpolation. Its length is the mean of the lengths, where the weighted mean
    of four unrelated tokens has half of it (Buss and Fillmore, "Spherical averages", 2001, algorithm A1).

    A part whose token is zero (its prompt is shorter) has no direction and only shortens the mean. Where directions
    cancel each other, the weighted mean is taken.
    """
    lengths = [embedding.norm(dim=-1, keepdim=True) for embedding, _ in parts]
    units = [embedding / length.clamp(min=1e-12) for (embedding, _), length in zip(parts, lengths, strict=True)]
    shares = [share * (length > 1e-6) for (_, share), length in zip(parts, lengths, strict=True)]
    known = sum(shares[1:], shares[0]).clamp(min=1e-12)
    pairs = [(unit, share / known) for unit, share in zip(units, shares, strict=True)]
    mean = linear(pairs)
    flat = mean.norm(dim=-1, keepdim=True) < 1e-3
    mean = mean / mean.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    for _ in range(1 if len(parts) == 2 else REFINEMENTS):  # of two, the first is exact
        turn = torch.zeros_like(mean)
        for unit, share in pairs:
            across = unit - mean * (unit * mean).sum(dim=-1, keepdim=True)
            sine = across.norm(dim=-1, keepdim=True)
            angle = torch.atan2(sine, (unit * mean).sum(dim=-1, keepdim=True))
            turn += share * across * (angle / sine.clamp(min=1e-12))
        angle = turn.norm(dim=-1, keepdim=True)
        mean = mean * torch.cos(angle) + turn * torch.sinc(angle / math.pi)
    length = linear([(length, share) for length, (_, share) in zip(lengths, parts, strict=True)])
    return torch.where(flat, linear(parts), mean * length)


BLENDS: dict[str, Blend] = {"slerp": slerp, "linear": linear}


def lengthened(parts: Parts, blend: Blend, gain: float) -> Tensor:
    """A blend, made longer by up to `gain` (`ModelSpec.blend_gain`).

    The factor is 1 for one part and `gain` for four equal ones; between, it follows 1 minus the sum of squared shares.
    """
    if len(parts) == 1:
        return parts[0][0]
    evenness = (1.0 - sum(share * share for _, share in parts)) * 4.0 / 3.0
    return blend(parts) * (1.0 + (gain - 1.0) * evenness)


class Travel:
    """Interpolates from the current embedding to a target over time, which is taken from the frames' timestamps."""

    def __init__(self, blend: Blend) -> None:
        self._blend = blend
        self._from: Tensor | None = None
        self._to: Tensor | None = None
        self._seconds = 0.0
        self._elapsed = 0.0
        self._last: float | None = None
        self._resting = True

    @property
    def resting(self) -> bool:
        """Whether the target has been reached."""
        return self._resting

    def set_target(self, target_XE: Tensor, seconds: float) -> None:
        """Start to move to another embedding, to arrive after `seconds`. The very first target is reached at once."""
        self._from, self._to = self.current(), target_XE
        self._seconds = seconds if self._from is not None else 0.0
        self._elapsed, self._resting = 0.0, False

    def advance(self, now: float) -> Tensor | None:
        """The embedding at the time `now` in s, or None if it has not changed since the last call.

        If time does not advance between calls (frames without timestamps), the target is reached at once. If it jumps
        back (a new source), no time has passed.
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
        """The embedding at the time of the last `advance`; None before the first target."""
        if self._from is None or self._to is None or self._elapsed >= self._seconds:
            return self._to
        share = self._elapsed / self._seconds
        return self._blend([(self._from, 1.0 - share), (self._to, share)])

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the state, by name."""
        named = {"from": self._from, "to": self._to}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def facts(self) -> dict[str, float | bool | None]:
        """The other values of the state."""
        return {"seconds": self._seconds, "elapsed": self._elapsed, "last": self._last, "resting": self._resting}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Set the state from what `tensors` and `facts` returned."""
        self._from, self._to = tensors.get("from"), tensors.get("to")
        self._seconds, self._elapsed = facts["seconds"], facts["elapsed"]
        self._last, self._resting = facts["last"], facts["resting"]


class _Known(NamedTuple):
    """An encoded prompt, and its embedding on the device: uploaded by the thread that encoded it, which may be another
    than the video's."""

    encoded: Conditioning
    on_device: PendingCopy


class Prompts:
    """Encodes prompts, caches the embeddings, blends them and interpolates between blends.

    Args:
        encoder: the text encoder. It may be slow; it is called from one thread at a time.
        blend: how embeddings are blended.
        gain: how much longer a blend of four equal shares is made (`lengthened`).
        device: device on which embeddings are kept and blended.
        defer: do not encode new texts in `update`, but list them in `missing` and keep the current blend until the
            caller has encoded them.

    Attributes:
        travel: the interpolation to the target.
        target: (text, share) pairs of the newest blend whose texts are all encoded.
        unknown: words of its texts that the model does not know.
        missing: texts of the wanted blend that are not encoded yet.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        blend: Blend,
        *,
        gain: float = 1.0,
        device: torch.device | str = "cpu",
        defer: bool = False,
    ) -> None:
        self._encoder, self._blend, self.gain, self._defer = encoder, blend, gain, defer
        self._device = torch.device(device)
        self._up, _ = transfers(self._device)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._memory_lock, self._encoder_lock = threading.Lock(), threading.Lock()
        self.travel = Travel(blend)
        self.target: tuple[tuple[str, float], ...] = ()
        self.unknown: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self._failed = False

    def encode(self, text: str) -> Conditioning:
        """Encode one prompt, or return the cached result. May be called from any thread. Starts its upload.

        Raises:
            ModelError: if the text encoder is missing or fails.
        """
        with self._encoder_lock:
            found = self._recall(text)
            if found is None:
                encoded = self._encoder.encode(text)
                on_gpu = self._device.type == "cuda"
                embedding = encoded.embedding.pin_memory() if on_gpu else encoded.embedding
                found = _Known(encoded, self._up.send(embedding))
                with self._memory_lock:
                    self._known[text] = found
                    while len(self._known) > MAX_CACHED:
                        self._known.popitem(last=False)
            return found.encoded

    def update(self, wanted: tuple[tuple[str, float], ...], seconds: float, now: float) -> Tensor | None:
        """Set the wanted blend and advance to the stream time `now`.

        Args:
            wanted: (text, share) pairs; the shares sum to 1.
            seconds: how long a change to a new blend takes.
            now: timestamp of the newest frame in s.

        Returns:
            The new embedding [X, E], or None if it has not changed.

        Raises:
            ModelError: if a text cannot be encoded, and encoding is not left to the caller.
        """
        self.missing = ()
        if wanted != self.target:
            found = {text: self._recall(text) for text, _ in wanted}
            self.missing = tuple(text for text, known in found.items() if known is None)
            if self.missing and not (self._defer and (self.target or self._failed)):
                found |= self._encode_now()
            if not self.missing:
                parts = [(known, share) for (text, share) in wanted if (known := found[text]) is not None]
                embeddings = [(known.on_device.wait().float(), share) for known, share in parts]
                self.travel.set_target(lengthened(embeddings, self._blend, self.gain), seconds)
                self.unknown = tuple(dict.fromkeys(word for known, _ in parts for word in known.encoded.unknown))
                self.target = wanted
        return self.travel.advance(now)

    def _encode_now(self) -> dict[str, _Known | None]:
        """Encode the missing texts. With `defer`, a failure is not raised; from then on the caller has to encode."""
        try:
            for text in self.missing:
                self.encode(text)
        except Exception:  # also out of memory: a stream without a prompt is better than none
            if not self._defer:
                raise
            self._failed = True
            return {}
        found = {text: self._recall(text) for text in self.missing}
        self.missing = ()
        return found

    @property
    def blended(self) -> bool:
        """Whether the current embedding is interpolated: between several prompts, or on the way to a target."""
        return len(self.target) > 1 or not self.travel.resting

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state: tensors by name, and the other values as JSON can hold them."""
        return self.travel.tensors(), {"travel": self.travel.facts(), "target": self.target, "unknown": self.unknown}

    def restore(self, saved: tuple[dict[str, Tensor], dict[str, Any]]) -> None:
        """Set the state from what `save` returned."""
        tensors, facts = saved
        self.travel.restore(tensors, facts["travel"])
        self.target = tuple((text, share) for text, share in facts["target"])
        self.unknown = tuple(facts["unknown"])

    def describe(self) -> str:
        """The target as text for the user, with shares in per cent if it is a blend."""
        if len(self.target) <= 1:
            return self.target[0][0] if self.target else ""
        return " + ".join(f"{share:.0%} {text}" for text, share in self.target)

    def _recall(self, text: str) -> _Known | None:
        with self._memory_lock:
            found = self._known.get(text)
            if found is not None:
                self._known.move_to_end(text)
            return found
