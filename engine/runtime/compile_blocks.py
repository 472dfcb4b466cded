"""Compiles what lies between the attentions of a block: norms, modulation, rotation, gates, GELU and the matmuls.

Applied from outside to a network that is there already. Each block is cut at its two attentions into three pieces;
`torch.compile` fuses the small operations of a piece into few kernels and leaves the matmuls to the device's library.
All blocks share the compiled pieces, prompts, strength and steps are numbers in tensors, so nothing is compiled again
once every number of rows has been seen. Compiled code is kept on disk between runs. Knows nothing of streams.

Shape letters: as in `engine.network.dit`; P complex pairs of a head.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, cast

import platformdirs
import torch
from torch import Tensor

from engine.network.attention import attend
from engine.network.dit import Block, CausalDiT, Memory, gate, modulate


def compile_chains(dit: CausalDiT) -> None:
    """Let the blocks run in compiled pieces from now on; the pieces are compiled when they first run."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("tidecast") / "compiled"))
    before, between, after = (torch.compile(piece, fullgraph=True) for piece in (_before, _between, _after))
    for block in dit.blocks:
        block.forward = partial(_forward, cast(Block, block), (before, between, after))


def _forward(
    block: Block,
    pieces: tuple[Any, Any, Any],
    x_BLD: Tensor,
    e0_BF6D: Tensor,
    rotation_BL1P: Tensor,
    text_keys: tuple[Tensor, Tensor],
    mask_LL: Tensor | None = None,
    memory: Memory | None = None,
    layer: int = 0,
    text_bias_T: Tensor | None = None,
) -> Tensor:
    """`Block.forward`, in pieces."""
    before, between, after = pieces
    q, k, v = before(block, x_BLD, e0_BF6D, torch.view_as_real(rotation_BL1P))
    if memory is not None:
        k, v, mask_LL = memory.append(layer, k, v)
    x_BLD, q = between(block, x_BLD, attend(q, k, v, mask_LL).flatten(2), e0_BF6D)
    return after(block, x_BLD, block.cross_attn.read(q, text_keys, text_bias_T), e0_BF6D)


def _before(block: Block, x_BLD: Tensor, e0_BF6D: Tensor, rotation_BL1P2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Up to self-attention: its rotated queries and keys, and its values."""
    shift, scale, *_ = (block.modulation + e0_BF6D).unbind(2)
    q, k, v = block.self_attn.project(modulate(block.norm1(x_BLD), shift, scale))
    return _rotated(q, rotation_BL1P2), _rotated(k, rotation_BL1P2), v


def _between(block: Block, x_BLD: Tensor, mixed_BLD: Tensor, e0_BF6D: Tensor) -> tuple[Tensor, Tensor]:
    """From what self-attention mixed: the tokens, and the queries of cross-attention."""
    _, _, gate1, *_ = (block.modulation + e0_BF6D).unbind(2)
    x_BLD = gate(x_BLD, block.self_attn.o(mixed_BLD), gate1)
    return x_BLD, block.cross_attn.queries(block.norm3(x_BLD))


def _after(block: Block, x_BLD: Tensor, read_BLD: Tensor, e0_BF6D: Tensor) -> Tensor:
    """From what cross-attention read to the next block."""
    _, _, _, shift, scale, gate2 = (block.modulation + e0_BF6D).unbind(2)
    x_BLD = x_BLD + block.cross_attn.o(read_BLD)
    return gate(x_BLD, block.ffn(modulate(block.norm2(x_BLD), shift, scale)), gate2)


def _rotated(x_BLHK: Tensor, rotation_BL1P2: Tensor) -> Tensor:
    """`rotate` with real numbers, which the compiler can fuse with what lies before it."""
    real, imaginary = x_BLHK.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = rotation_BL1P2.unbind(-1)
    rotated = torch.stack((real * cosine - imaginary * sine, real * sine + imaginary * cosine), dim=-1)
    return rotated.flatten(-2).to(x_BLHK.dtype)
