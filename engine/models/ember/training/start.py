"""Initial weights of the network, close to a solution, which saves most of the training time.

The patch embedding and the last projection are inverse to each other and every branch of a block starts close to zero,
so the untrained network passes its input through. Most heads of self-attention start as a stencil (the token itself,
its four neighbours, the same place one frame earlier): queries and keys get a constant part, with which the rotary
positions become a kernel that peaks at a chosen distance.
"""

from __future__ import annotations

import torch

from engine.models.ember.training.autoencode import PICTURE_GAIN
from engine.network.dit import CausalDiT, sinusoid
from engine.network.dit_shape import DiTShape

STENCIL = ((0, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1), (-1, 0, 0))
"""Distance (frames, rows, columns) to the token that each of the first heads attends to; the others start random."""

SIGNAL = 0.35
"""Standard deviation of a token's picture part. The rest of the token is constant, so that the norm keeps contrasts."""

DETAIL = 0.25
"""Root mean square of the picture's detail, relative to that of all picture channels."""

WORDS = 4.0
"""Gain of the text on the part of a token from which the look is read, so that words differ from the first step."""

PEAK = 3.0
"""Gain of the stencil's queries and keys; larger values make the peak sharper."""


@torch.no_grad()
def begin(dit: CausalDiT, picture: int, generator: torch.Generator) -> None:
    """Initialise every weight, for latents whose first `picture` channels have a root mean square of `PICTURE_GAIN`.

    Raises:
        ValueError: if the network is too narrow for the picture channels of a patch.
    """
    dit.init_weights(generator)
    shape = dit.shape
    _, height, width = shape.patch
    spots, values = height * width, height * width * picture
    if values >= shape.dim:
        raise ValueError(f"a width of {shape.dim} cannot pass on patches of {values} numbers")
    embedding, head = dit.patch_embedding, dit.head.head
    identity = torch.zeros(shape.dim, spots * shape.latent_channels)
    identity[:values, :values] = torch.eye(values)
    embedding.weight.copy_(identity.view_as(embedding.weight) * (SIGNAL / PICTURE_GAIN))
    constants = torch.ones(shape.dim - values)
    constants[::2] = -1.0
    embedding.bias.zero_()
    embedding.bias[values:] = constants
    spread = ((len(constants) + values * SIGNAL**2) / shape.dim) ** 0.5
    passed_on = identity.view(shape.dim, shape.latent_channels, spots).permute(2, 1, 0)  # channels last, as the head
    by_channel = head.weight.view(spots, shape.latent_channels, shape.dim)
    by_channel[:, :picture] = passed_on[:, :picture] * (spread * PICTURE_GAIN / SIGNAL)

    by_channel[:, picture:] = 0.0
    by_channel[:, picture:, values:] = torch.empty(1, shape.latent_channels - picture, len(constants)).normal_(
        std=len(constants) ** -0.5, generator=generator
    )

    dit.head.modulation.zero_()
    dit.time_embedding[2].weight.mul_(0.05)
    for block in dit.blocks:
        block.modulation.zero_()
        block.modulation[:, (2, 5)] = 1.0  # both gates open
        for last, size in ((block.self_attn.o, 0.004), (block.cross_attn.o, 0.02), (block.ffn[2], 0.004)):
            last.weight.mul_(size)
        attention = block.self_attn
        for layer, norm in ((attention.q, attention.norm_q), (attention.k, attention.norm_k)):
            layer.weight[: len(STENCIL) * shape.head_dim].mul_(0.3)
            norm.weight[: len(STENCIL) * shape.head_dim] = PEAK
        for number, distance in enumerate(STENCIL[: shape.heads]):
            part = slice(number * shape.head_dim, (number + 1) * shape.head_dim)
            attention.q.bias[part] = _rotated(shape, (0, 0, 0))
            attention.k.bias[part] = _rotated(shape, distance)
    words = dit.blocks[-1].cross_attn.o.weight[values:]
    words.normal_(std=WORDS * shape.dim**-0.5, generator=generator)
    _amplify(dit, values, len(constants))


def _amplify(dit: CausalDiT, values: int, constants: int) -> None:
    """Make the first block multiply the picture part of a token by a factor that depends on the noise level t.

    The best linear estimate of z from x = (1 - t) z + t n is x (1 - t) / ((1 - t)^2 + t^2 / g^2), where g is the ratio
    of the root mean squares of z and n. Pairs of units turn the feed-forward layer into a linear map, since gelu(a) -
    gelu(-a) = a; its gate, a function of t, is fitted to the factor by least squares.
    """
    first, last = dit.blocks[0].ffn[0], dit.blocks[0].ffn[2]
    dim = dit.shape.dim
    first.weight[: 2 * values].zero_()
    last.weight[:, : 2 * values].zero_()
    spot = torch.arange(values)
    for sign, unit in ((1.0, spot), (-1.0, spot + values)):
        first.weight[unit, spot] = sign
        last.weight[spot, unit] = sign
    t = torch.linspace(0, 1, 201)
    factor = (1 - t) / ((1 - t) ** 2 + (t / (PICTURE_GAIN * DETAIL)) ** 2)
    norm = ((constants + values * (SIGNAL * (1 - t)) ** 2) / dim).sqrt()
    features = torch.nn.functional.silu(dit.time_embedding(sinusoid(1000 * t[None], dit.shape.freq_dim).float())[0])
    features = torch.cat((features, torch.ones(len(t), 1)), dim=1).double()
    gram = features.T @ features + 1e-7 * torch.eye(dim + 1, dtype=torch.float64)
    weights = torch.linalg.solve(gram, features.T @ ((factor - 1) * norm).double()).float()
    gate = slice(5 * dim, 5 * dim + values)
    dit.time_projection[1].weight[gate] = weights[:-1]
    dit.time_projection[1].bias[gate] = weights[-1]
    dit.blocks[0].modulation[:, 5, :values] = 0.0


def _rotated(shape: DiTShape, distance: tuple[int, int, int]) -> torch.Tensor:
    """The constant [head_dim] of a key whose product with the query's constant is largest at this distance.

    Rotary positions turn the key at that distance by a further angle than the query. Rotating the constant back by this
    angle makes the two parallel there.
    """
    pairs = shape.head_dim // 2
    side = pairs // 3
    angles = []
    for count, far in zip((pairs - 2 * side, side, side), distance, strict=True):
        angles.append(-far * shape.rope_base ** (-torch.arange(count) / max(count, 1)))
    turn = torch.cat(angles)
    return torch.stack((turn.cos() - turn.sin(), turn.cos() + turn.sin()), dim=-1).flatten()
