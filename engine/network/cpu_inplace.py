"""What lies between the network's matmuls and its attention, arranged for a CPU: fewer passes, less new memory.

There a pass over memory costs as much as arithmetic, and memory that is asked for anew is cleared by the system page by
page. So the feed-forward is done a part of its hidden width at a time, while that part is still in the cache; queries
and keys are normalised and rotated, and tokens shifted, scaled and gated, where they lie. What a prompt's values become
in the last linear layer of cross-attention is computed once a prompt. Inference in float32 only: tensors are
overwritten, and nothing can be differentiated. Arithmetic on tensors; knows no layers and no network.

Shape letters: B batch, F latent frames, L tokens, D width of the network, U hidden width, J heads, K width of a head,
P complex pairs of a head (K / 2), X tokens of the text, Y = J X, I = J K inputs of the linear layer after attention.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_HIDDEN = 2**21
"""Most hidden numbers that are held at a time: 8 MiB, what a core's share of the last cache holds."""


def applies(x: Tensor) -> bool:
    """Whether this module's arithmetic is for this tensor, here and now."""
    wide = x.device.type == "cpu" and x.dtype == torch.float32
    return wide and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def feed_forward(x_BLD: Tensor, up_UD: Tensor, bias_U: Tensor, down_DU: Tensor, bias_D: Tensor) -> Tensor:
    """GELU (by tanh) between two linear layers: [B, L, D] to [B, L, D]."""
    x_LD = x_BLD.flatten(0, 1)
    part = max(MAX_HIDDEN // x_LD.shape[0], 64)
    y_LD = x_LD.new_empty(x_LD.shape[0], len(bias_D)).copy_(bias_D)
    hidden = x_LD.new_empty(x_LD.shape[0], min(part, len(up_UD)))
    for up, bias, down in zip(up_UD.split(part), bias_U.split(part), down_DU.split(part, dim=1), strict=True):
        h_LU = hidden[:, : len(up)]
        torch.addmm(bias, x_LD, up.T, out=h_LU)
        torch.ops.aten.gelu_(h_LU, approximate="tanh")
        y_LD.addmm_(h_LU, down.T)
    return y_LD.view(x_BLD.shape)


def normalise_and_rotate(x_BLD: Tensor, weight_D: Tensor, eps: float, rotation_BL1P: Tensor) -> Tensor:
    """RMS norm over the whole width, then every complex pair of every head rotated, both in place: [B, L, J, K]."""
    scale_BL1 = _scale(x_BLD, eps)
    x_BLJK = x_BLD.mul_(weight_D).unflatten(-1, (-1, 2 * rotation_BL1P.shape[-1]))
    torch.view_as_complex(x_BLJK.unflatten(-1, (-1, 2))).mul_(rotation_BL1P * scale_BL1[..., None])
    return x_BLJK


def normalise(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """RMS norm over the whole width, in place."""
    scale_BL1 = _scale(x_BLD, eps)
    return x_BLD.mul_(weight_D).mul_(scale_BL1)


def modulate(x_BLD: Tensor, shift_BFD: Tensor, scale_BFD: Tensor) -> Tensor:
    """x (1 + scale) + shift in place, each frame's tokens with their frame's shift and scale."""
    x_BFLD = x_BLD.unflatten(1, (shift_BFD.shape[1], -1))
    torch.addcmul(shift_BFD[:, :, None], x_BFLD, 1 + scale_BFD[:, :, None], out=x_BFLD)
    return x_BLD


def gate(x_BLD: Tensor, y_BLD: Tensor, gate_BFD: Tensor) -> Tensor:
    """x + gate y in place of x, each frame's tokens with their frame's gate."""
    split = (gate_BFD.shape[1], -1)
    x_BLD.unflatten(1, split).addcmul_(y_BLD.unflatten(1, split), gate_BFD[:, :, None])
    return x_BLD


def folded(v_XJK: Tensor, out_DI: Tensor, bias_D: Tensor) -> Tensor:
    """A text's values after the linear layer that follows attention, bias included: [Y, D].

    A token's output is the sum of these rows, weighted by its attention. `out_DI` is that layer's weight.
    """
    heads = v_XJK.shape[1]
    out_JKD = out_DI.T.unflatten(0, (heads, -1))
    return torch.bmm(v_XJK.transpose(0, 1), out_JKD).add_(bias_D / heads).flatten(0, 1)


def add_text(
    x_BLD: Tensor, q_BLD: Tensor, weight_D: Tensor, eps: float, k_XJK: Tensor, rows_YD: Tensor, bias_X: Tensor | None
) -> Tensor:
    """Add to the tokens what they read from the text, in place.

    Args:
        x_BLD: the tokens.
        q_BLD: their queries, before the RMS norm of `weight_D` and `eps`.
        k_XJK: the text's keys.
        rows_YD: from `folded`.
        bias_X: is added to the logits of the text's tokens.
    """
    tokens, heads, width = k_XJK.shape
    scale_L1 = _scale(q_BLD, eps).flatten(0, 1).mul_(width**-0.5)
    q_JLK = q_BLD.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(0, 1)
    k_JKX = (k_XJK * weight_D.unflatten(0, (heads, -1))).permute(1, 2, 0)
    like_JLX = torch.bmm(q_JLK, k_JKX).mul_(scale_L1)
    if bias_X is not None:
        like_JLX.add_(bias_X)
    share_LY = like_JLX.softmax(-1).transpose(0, 1).reshape(-1, heads * tokens)
    x_BLD.flatten(0, 1).addmm_(share_LY, rows_YD)
    return x_BLD


def _scale(x_BLD: Tensor, eps: float) -> Tensor:
    """What takes every token to a root mean square of 1."""
    return torch.linalg.vector_norm(x_BLD, dim=-1, keepdim=True).square_().div_(x_BLD.shape[-1]).add_(eps).rsqrt_()
