"""Rotary position embedding (RoPE, arXiv 2104.09864) over three axes: frame, row and column, as in Wan2.1.

Adjacent numbers of a head form complex pairs, which are rotated by an angle that depends on the token's position. Of
the `head_dim / 2` pairs, a third (rounded down) rotates with the row, a third with the column and the rest with the
frame. Each axis has its own frequencies. Angles are computed in fp64 and rounded once.

Shape letters: B batch, F frames, h w token rows and columns, L = F h w tokens, J heads, K width of a head,
P complex pairs of a head (K / 2).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.network.dit_shape import DiTShape


@dataclass(frozen=True, slots=True, eq=False)
class Rope:
    """The rotations for one latent size, as tables.

    Attributes:
        frame_FP: complex64 [rope_positions, pairs of the frame axis].
        place_LP: complex64 [h w, pairs of the row and column axes].
    """

    frame_FP: Tensor
    place_LP: Tensor

    def at(self, frames_BF: Tensor) -> Tensor:
        """Rotations of every token of the frames at these positions (int64): complex64 [B, F h w, 1, P]."""
        batch, count = frames_BF.shape
        tokens, pairs = self.place_LP.shape
        frame = self.frame_FP[frames_BF][:, :, None].expand(batch, count, tokens, -1)
        place = self.place_LP.expand(batch, count, tokens, pairs)
        return torch.cat((frame, place), dim=-1).reshape(batch, count * tokens, 1, -1)


@functools.lru_cache(maxsize=16)
def rope_for(shape: DiTShape, rows: int, columns: int, device: torch.device) -> Rope:
    """The rotations for frames of `rows` x `columns` tokens."""
    pairs = shape.head_dim // 2
    side = pairs // 3
    row, column = (_rotations(torch.arange(n), side, shape.rope_base) for n in (rows, columns))
    place = torch.cat(
        (row[:, None].expand(rows, columns, side), column[None].expand(rows, columns, side)), dim=-1
    ).reshape(rows * columns, 2 * side)
    frame = _rotations(torch.arange(shape.rope_positions), pairs - 2 * side, shape.rope_base)
    return Rope(frame.to(device, torch.complex64), place.to(device, torch.complex64))


def _rotations(positions_F: Tensor, pairs: int, base: float) -> Tensor:
    """exp(i n base^(-p / pairs)) for every position n and pair p: complex128 [F, pairs]."""
    frequency_P = base ** (-torch.arange(pairs, dtype=torch.float64) / max(pairs, 1))
    angle_FP = torch.outer(positions_F.double(), frequency_P)
    return torch.polar(torch.ones_like(angle_FP), angle_FP)


def rotate(x_BLJK: Tensor, rotation_BL1P: Tensor) -> Tensor:
    """Rotate every complex pair of every head; computes in fp32 and returns the type of the input."""
    pairs = torch.view_as_complex(x_BLJK.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation_BL1P).flatten(-2).to(x_BLJK.dtype)
