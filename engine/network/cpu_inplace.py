"""What lies between the network's matmuls and its attention, arranged for a CPU: fewer passes, less new memory.

There a pass over memory costs as much as arithmetic, and memory that is asked for anew is cleared by the system page by
page. So the feed-forward is done a part of its hidden width at a time, while that part is still in the cache; queries
and keys are normalised and rotated, and tokens shifted, scaled and gated, where they lie. What a prompt's values become
in the last linear layer of cross-attention is computed once a prompt. Inference in float32 only: tensors are
overwritten, and nothing can be differentiated. Arithmetic on tensors; knows no layers and no network.

Shape letters: B batch, F latent frames, L tokens, I width of the network, M hidden width, H heads, K width of a head,
P complex pairs of a head (K / 2), T tokens of the text.
"""

from __future__ import annotations

import torch
from torch import Tensor

HIDDEN = 2**21
"""Most hidden numbers that are held at a time: 8 MiB, what a core's share of the last cache holds."""


def applies(x: Tensor) -> bool:
    """Whether this module's arithmetic is for this tensor, here and now."""
    wide = x.device.type == "cpu" and x.dtype == torch.float32
    return wide and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def feed_forward(x_BLI: Tensor, up_MI: Tensor, bias_M: Tensor, down_IM: Tensor, bias_I: Tensor) -> Tensor:
    """GELU (by tanh) between two linear layers: [B, L, I] to [B, L, I]."""
    x_NI = x_BLI.flatten(0, 1)
    part = max(HIDDEN // x_NI.shape[0], 64)
    y_NI = x_NI.new_empty(x_NI.shape[0], len(bias_I)).copy_(bias_I)
    hidden = x_NI.new_empty(x_NI.shape[0], min(part, len(up_MI)))
    for up, bias, down in zip(up_MI.split(part), bias_M.split(part), down_IM.split(part, dim=1), strict=True):
        h_NM = hidden[:, : len(up)]
        torch.addmm(bias, x_NI, up.T, out=h_NM)
        torch.ops.aten.gelu_(h_NM, approximate="tanh")
        y_NI.addmm_(h_NM, down.T)
    return y_NI.view(x_BLI.shape)


def normalise_and_rotate(x_BLI: Tensor, weight_I: Tensor, eps: float, rotation_BL1P: Tensor) -> Tensor:
    """RMS norm over the whole width, then every complex pair of every head rotated, both in place: [B, L, H, K]."""
    scale_BL1 = _scale(x_BLI, eps)
    x_BLHK = x_BLI.mul_(weight_I).unflatten(-1, (-1, 2 * rotation_BL1P.shape[-1]))
    torch.view_as_complex(x_BLHK.unflatten(-1, (-1, 2))).mul_(rotation_BL1P * scale_BL1[..., None])
    return x_BLHK


def normalise(x_BLI: Tensor, weight_I: Tensor, eps: float) -> Tensor:
    """RMS norm over the whole width, in place."""
    scale_BL1 = _scale(x_BLI, eps)
    return x_BLI.mul_(weight_I).mul_(scale_BL1)


def modulate(x_BLI: Tensor, shift_BFI: Tensor, scale_BFI: Tensor) -> Tensor:
    """x (1 + scale) + shift in place, each frame's tokens with their frame's shift and scale."""
    x_BFLI = x_BLI.unflatten(1, (shift_BFI.shape[1], -1))
    torch.addcmul(shift_BFI[:, :, None], x_BFLI, 1 + scale_BFI[:, :, None], out=x_BFLI)
    return x_BLI


def gate(x_BLI: Tensor, y_BLI: Tensor, gate_BFI: Tensor) -> Tensor:
    """x + gate y in place of x, each frame's tokens with their frame's gate."""
    split = (gate_BFI.shape[1], -1)
    x_BLI.unflatten(1, split).addcmul_(y_BLI.unflatten(1, split), gate_BFI[:, :, None])
    return x_BLI


def folded(v_THK: Tensor, out_IJ: Tensor, bias_I: Tensor) -> Tensor:
    """A text's values after the linear layer that follows attention, bias included: [H T, I].

    A token's output is the sum of these rows, weighted by its attention. `out_IJ` is that layer's weight, J = H K.
    """
    heads = v_THK.shape[1]
    out_HKI = out_IJ.T.unflatten(0, (heads, -1))
    return torch.bmm(v_THK.transpose(0, 1), out_HKI).add_(bias_I / heads).flatten(0, 1)


def add_text(
    x_BLI: Tensor, q_BLI: Tensor, weight_I: Tensor, eps: float, k_THK: Tensor, rows_RI: Tensor, bias_T: Tensor | None
) -> Tensor:
    """Add to the tokens what they read from the text, in place.

    Args:
        x_BLI: the tokens.
        q_BLI: their queries, before the RMS norm of `weight_I` and `eps`.
        k_THK: the text's keys.
        rows_RI: from `folded`.
        bias_T: is added to the logits of the text's tokens.
    """
    tokens, heads, width = k_THK.shape
    scale_N1 = _scale(q_BLI, eps).flatten(0, 1).mul_(width**-0.5)
    q_HNK = q_BLI.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(0, 1)
    k_HKT = (k_THK * weight_I.unflatten(0, (heads, -1))).permute(1, 2, 0)
    like_HNT = torch.bmm(q_HNK, k_HKT).mul_(scale_N1)
    if bias_T is not None:
        like_HNT.add_(bias_T)
    share_NR = like_HNT.softmax(-1).transpose(0, 1).reshape(-1, heads * tokens)
    x_BLI.flatten(0, 1).addmm_(share_NR, rows_RI)
    return x_BLI


def _scale(x_BLI: Tensor, eps: float) -> Tensor:
    """What takes every token to a root mean square of 1."""
    return torch.linalg.vector_norm(x_BLI, dim=-1, keepdim=True).square_().div_(x_BLI.shape[-1]).add_(eps).rsqrt_()
