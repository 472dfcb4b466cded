"""Where the network's weights begin: at a function that is nearly right already.

The first patch embedding and the last projection are inverse to each other and every branch of a block starts at
zero, so the untrained network hands its input on. Most heads of self-attention start as a stencil (the token
itself, its four neighbours, its own place one frame earlier): a constant part of queries and keys makes rotary
positions a kernel that peaks at a chosen distance. On a budget of minutes this saves most of them. Knows the
network's parameters, no data.
"""

from __future__ import annotations

import torch

from engine.models.ember.training.autoencode import PICTURE_GAIN
from engine.models.spec import DiTShape
from engine.models.wan21.dit import CausalDiT

STENCIL = ((0, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1), (-1, 0, 0))
"""Distance (frames, rows, columns) at which each of the first heads looks; the other heads start random."""

SIGNAL = 0.5
"""Spread of a token's picture part; the rest of its width holds constants that keep the norm from hiding contrast."""

PEAK = 3.0
"""Gain of queries and keys of the stencil: how sharply it peaks."""


@torch.no_grad()
def begin(dit: CausalDiT, generator: torch.Generator) -> None:
    """Set every weight, for latents with a root mean square of `PICTURE_GAIN`."""
    dit.init_weights(generator)
    shape = dit.shape
    _, height, width = shape.patch
    spots, values = height * width, height * width * shape.latent_channels
    if values >= shape.dim:
        raise ValueError(f"a width of {shape.dim} cannot hand on patches of {values} numbers")
    embedding, head = dit.patch_embedding, dit.head.head
    identity = torch.eye(shape.dim, values)
    embedding.weight.copy_(identity.view_as(embedding.weight) * (SIGNAL / PICTURE_GAIN))
    constants = torch.ones(shape.dim - values)
    constants[::2] = -1.0
    embedding.bias.zero_()
    embedding.bias[values:] = constants
    spread = ((len(constants) + values * SIGNAL**2) / shape.dim) ** 0.5
    channel_last = identity.view(shape.dim, shape.latent_channels, spots).transpose(1, 2).reshape(shape.dim, values)
    head.weight.copy_(channel_last.T * (spread * PICTURE_GAIN / SIGNAL))

    dit.head.modulation.zero_()
    dit.time_embedding[2].weight.mul_(0.1)
    for block in dit.blocks:
        block.modulation.zero_()
        block.modulation[:, (2, 5)] = 1.0  # both gates open
        for last in (block.self_attn.o, block.cross_attn.o, block.ffn[2]):
            last.weight.mul_(0.02)
        attention = block.self_attn
        for layer, norm in ((attention.q, attention.norm_q), (attention.k, attention.norm_k)):
            layer.weight[: len(STENCIL) * shape.head_dim].mul_(0.3)
            norm.weight[: len(STENCIL) * shape.head_dim] = PEAK
        for number, distance in enumerate(STENCIL[: shape.heads]):
            part = slice(number * shape.head_dim, (number + 1) * shape.head_dim)
            attention.q.bias[part] = _turned(shape, (0, 0, 0))
            attention.k.bias[part] = _turned(shape, distance)


def _turned(shape: DiTShape, distance: tuple[int, int, int]) -> torch.Tensor:
    """A head's constant that, with rotary positions, answers to a constant query most at this distance: [head_dim].

    A key at q + distance is turned by the angle of the distance more than the query; turning it back by that angle
    makes the two parallel there.
    """
    pairs = shape.head_dim // 2
    side = pairs // 3
    angles = []
    for count, far in zip((pairs - 2 * side, side, side), distance, strict=True):
        angles.append(-far * shape.rope_base ** (-torch.arange(count) / max(count, 1)))
    turn = torch.cat(angles)
    return torch.stack((turn.cos() - turn.sin(), turn.cos() + turn.sin()), dim=-1).flatten()
