"""Sizes of the causal diffusion transformer of the Wan2.1 family. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import ModelError


@dataclass(frozen=True, slots=True)
class DiTShape:
    """Sizes of the causal diffusion transformer.

    Attributes:
        dim: width of the network.
        heads: attention heads.
        layers: blocks.
        ffn: hidden width of the feed-forward.
        latent_channels: channels of a latent frame.
        patch: size of a token's patch: latent frames, rows, columns.
        text_dim, text_len: width and tokens of a prompt's embedding.
        freq_dim: width of the sinusoidal embedding of a timestep.
        eps: epsilon of the norms.
        rope_base: base of the RoPE frequencies.
        rope_positions: number of frame positions for which rotations are computed.
        source_channels: channels of the input's latents, which follow the noisy ones; 0 for a network without.
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
    source_channels: int = 0

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads


def dit_shape(shape: Any) -> DiTShape:
    """Check that `ModelSpec.network` is a `DiTShape`, and return it.

    Raises:
        ModelError: if it is not.
    """
    if not isinstance(shape, DiTShape):
        raise ModelError(f"{type(shape).__name__} is not the shape of a causal diffusion transformer.")
    return shape
