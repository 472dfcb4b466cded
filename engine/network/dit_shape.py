"""Sizes of the causal diffusion transformer of the Wan2.1 family. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import ModelError


@dataclass(frozen=True, slots=True)
class DiTShape:
    """Sizes of the causal diffusion transformer.

    `rope_base` is the base of the rotary frequencies (Wan: 10000), `rope_positions` the length of their table.
    """

    dim: int
    heads: int
    layers: int
    ffn: int
    latent_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    text_dim: int = 4096
    text_len: int = 512
    freq_dim: int = 256
    eps: float = 1e-6
    rope_base: float = 10000.0
    rope_positions: int = 1024

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads


def dit_shape(shape: Any) -> DiTShape:
    """The sizes of a row whose network is a `CausalDiT`.

    Raises:
        ModelError: if it is another network.
    """
    if not isinstance(shape, DiTShape):
        raise ModelError(f"{type(shape).__name__} is not the shape of a causal diffusion transformer.")
    return shape
