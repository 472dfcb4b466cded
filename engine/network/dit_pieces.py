"""A block of the causal diffusion transformer, divided into parts that can be compiled.

Three functions, which all blocks share, contain the norms, modulation, RoPE, gates, GELU and the matmuls. They are
compiled. Self-attention, with the KV cache, and cross-attention lie between them and are not.

Shape letters: as in `engine.network.dit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.network.attention import attend
from engine.network.dit_layers import Block, gate, modulate, recall
from engine.network.protocol import Memory


def compile_blocks(blocks: Iterable[Block], compiler: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the blocks' `forward` by one that runs the compiled parts."""
    pieces = (compiler(_before), compiler(_between), compiler(_after))
    for block in blocks:
        block.forward = partial(_forward, block, pieces)  # type: ignore[method-assign]


def _forward(
    block: Block,
    pieces: tuple[Callable[..., Any], ...],
    x_BLD: Tensor,
    e0_BF6D: Tensor,
    rotation_BL1P: Tensor,
    text_keys: tuple[Tensor, Tensor],
    mask_LL: Tensor | None = None,
    memory: Memory | None = None,
    layer: int = 0,
    text_bias_X: Tensor | None = None,
) -> Tensor:
    """`Block.forward` with the compiled parts `pieces`."""
    before, between, after = pieces
    q, k, v = before(block, x_BLD, e0_BF6D, torch.view_as_real(rotation_BL1P))
    mixed = attend(q, k, v, mask_LL) if memory is None else recall(memory, layer, q, k, v)
    x_BLD, q = between(block, x_BLD, mixed.flatten(2), e0_BF6D)
    return after(block, x_BLD, block.cross_attn.read(q, text_keys, text_bias_X), e0_BF6D)


def _before(block: Block, x_BLD: Tensor, e0_BF6D: Tensor, rotation_BL1P2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Up to self-attention: its queries and keys after RoPE, and its values."""
    shift, scale, *_ = (block.modulation + e0_BF6D).unbind(2)
    q, k, v = block.self_attn.project(modulate(block.norm1(x_BLD), shift, scale))
    return _rotated(q, rotation_BL1P2), _rotated(k, rotation_BL1P2), v


def _between(block: Block, x_BLD: Tensor, mixed_BLD: Tensor, e0_BF6D: Tensor) -> tuple[Tensor, Tensor]:
    """From the output of self-attention, `mixed_BLD`: the tokens, and the queries of cross-attention."""
    _, _, gate1, *_ = (block.modulation + e0_BF6D).unbind(2)
    x_BLD = gate(x_BLD, block.self_attn.o(mixed_BLD), gate1)
    return x_BLD, block.cross_attn.queries(block.norm3(x_BLD))


def _after(block: Block, x_BLD: Tensor, read_BLD: Tensor, e0_BF6D: Tensor) -> Tensor:
    """From the output of cross-attention, `read_BLD`: the tokens for the next block."""
    _, _, _, shift, scale, gate2 = (block.modulation + e0_BF6D).unbind(2)
    x_BLD = x_BLD + block.cross_attn.o(read_BLD)
    return gate(x_BLD, block.ffn(modulate(block.norm2(x_BLD), shift, scale)), gate2)


def _rotated(x_BLJK: Tensor, rotation_BL1P2: Tensor) -> Tensor:
    """`rotate` with real numbers, which the compiler can fuse with the preceding operations."""
    real, imaginary = x_BLJK.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = rotation_BL1P2.unbind(-1)
    rotated = torch.stack((real * cosine - imaginary * sine, real * sine + imaginary * cosine), dim=-1)
    return rotated.flatten(-2).to(x_BLJK.dtype)
