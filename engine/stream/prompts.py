"""Prompts: encoding, weighted blends, and gradual changes from one blend to the next.

Embeddings are blended token by token, by spherical (slerp) or linear interpolation. A new blend does not replace the
old one at once: the embedding is interpolated between them over some seconds (*travel*). Time is taken from the frames'
timestamps.

Shape letters: X tokens, E width of an embedding.
"""

from __future__ import annotations

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

Blend = Callable[[Tensor, Tensor, float], Tensor]
"""Interpolates from one embedding [X, E] to another; the third argument is the share of the second, 0 to 1."""


def linear(a_XE: Tensor, b_XE: Tensor, share: float) -> Tensor:
    """Linear interpolation."""
    return torch.lerp(a_XE, b_XE, share)


def slerp(a_XE: Tensor, b_XE: Tensor, share: float) -> Tensor:
    """Spherical interpolation of each token: directions along the arc between them, lengths linearly.

    Tokens are interpolated linearly where there is no unique arc: if one of them is zero (the other prompt is longer)
    or if they have the same or opposite directions.
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
    """Blend any number of (embedding, share) pairs, one after the other; the shares sum to 1."""
    (total, weight), *others = parts
    for embedding, share in others:
        weight += share
        total = blend(total, embedding, share / weight)
    return total


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
        return self._blend(self._from, self._to, self._elapsed / self._seconds)

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
        blend: how two embeddings are interpolated.
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
        self, encoder: TextEncoder, blend: Blend, *, device: torch.device | str = "cpu", defer: bool = False
    ) -> None:
        self._encoder, self._blend, self._defer = encoder, blend, defer
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
                self.travel.set_target(blended(embeddings, self._blend), seconds)
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
