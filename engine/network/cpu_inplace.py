"""In-place variants of the network's elementwise operations and small matmuls for CPUs.

On a CPU, a pass over memory costs as much as arithmetic, and the system clears newly allocated memory page by page.
Therefore:

* The feed-forward computes a part of its hidden width at a time, while that part is in the CPU's cache.
* Norms, RoPE and modulation overwrite their inputs.
* A prompt's values are multiplied by the output layer of cross-attention once per prompt.

For inference in float32 only: tensors are overwritten, so gradients cannot be computed.

Shape letters: B batch, F latent frames, L tokens, D width of the network, U hidden width, J heads, K width of a head,
P complex pairs of a head (K / 2), X tokens of the text, Y = J X, I = J K inputs of the linear layer after attention.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_HIDDEN = 2**21
"""Largest number of hidden activations computed at a time: 8 MiB, a core's share of the last-level cache."""


def applies(x: Tensor) -> bool:
    """Whether this module may be used for this tensor: float32 on a CPU, without gradients, not being compiled."""
    wide = x.device.type == "cpu" and x.dtype == torch.float32
    return wide and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def feed_forward(x_BLD: Tensor, up_UD: Tensor, bias_U: Tensor, down_DU: Tensor, bias_D: Tensor) -> Tensor:
    """Two linear layers with a GELU (tanh approximation) between them: [B, L, D] to [B, L, D]."""
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
    """RMS norm over the whole width, and then RoPE, both in place: [B, L, J, K]."""
    scale_BL1 = _scale(x_BLD, eps)
    x_BLJK = x_BLD.mul_(weight_D).unflatten(-1, (-1, 2 * rotation_BL1P.shape[-1]))
    torch.view_as_complex(x_BLJK.unflatten(-1, (-1, 2))).mul_(rotation_BL1P * scale_BL1[..., None])
    return x_BLJK


def normalise(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """RMS norm over the whole width, in place."""
    scale_BL1 = _scale(x_BLD, eps)
    return x_BLD.mul_(weight_D).mul_(scale_BL1)


def modulate(x_BLD: Tensor, shift_BFD: Tensor, scale_BFD: Tensor) -> Tensor:
    """x (1 + scale) + shift in place, with shift and scale of each token's frame."""
    x_BFLD = x_BLD.unflatten(1, (shift_BFD.shape[1], -1))
    torch.addcmul(shift_BFD[:, :, None], x_BFLD, 1 + scale_BFD[:, :, None], out=x_BFLD)
    return x_BLD


def gate(x_BLD: Tensor, y_BLD: Tensor, gate_BFD: Tensor) -> Tensor:
    """x + gate y in place, with the gate of each token's frame."""
    split = (gate_BFD.shape[1], -1)
    x_BLD.unflatten(1, split).addcmul_(y_BLD.unflatten(1, split), gate_BFD[:, :, None])
    return x_BLD


def folded(v_XJK: Tensor, out_DI: Tensor, bias_D: Tensor) -> Tensor:
    """Multiply a text's values by the output layer of cross-attention (`out_DI`, `bias_D`): [Y, D].

    The output of cross-attention for a token is the sum of these rows, weighted by its attention.
    """
    heads = v_XJK.shape[1]
    out_JKD = out_DI.T.unflatten(0, (heads, -1))
    return torch.bmm(v_XJK.transpose(0, 1), out_JKD).add_(bias_D / heads).flatten(0, 1)


def add_text(
    x_BLD: Tensor, q_BLD: Tensor, weight_D: Tensor, eps: float, k_XJK: Tensor, rows_YD: Tensor, bias_X: Tensor | None
) -> Tensor:
    """Add the output of cross-attention to the tokens, in place.

    Args:
        x_BLD: the tokens.
        q_BLD: their queries, before the RMS norm with `weight_D` and `eps`.
        weight_D, eps: weight and epsilon of this norm.
        k_XJK: the text's keys.
        rows_YD: the text's multiplied values, from `folded`.
        bias_X: added to the logits of the text tokens.
    """
    tokens, heads, width = k_XJK.shape
    scale_L1 = _scale(q_BLD, eps).flatten(0, 1).mul_(width**-0.5)
    q_JLK = q_BLD.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(0, 1)
    k_JKX = (k_XJK * weight_D.unflatten(0, (heads, -1))).permute(1, 2, 0)
    logits_JLX = torch.bmm(q_JLK, k_JKX).mul_(scale_L1)
    if bias_X is not None:
        logits_JLX.add_(bias_X)
    attention_LY = logits_JLX.softmax(-1).transpose(0, 1).reshape(-1, heads * tokens)
    x_BLD.flatten(0, 1).addmm_(attention_LY, rows_YD)
    return x_BLD


def _scale(x_BLD: Tensor, eps: float) -> Tensor:
    """The reciprocal root mean square of each token, by which an RMS norm multiplies."""
    return torch.linalg.vector_norm(x_BLD, dim=-1, keepdim=True).square_().div_(x_BLD.shape[-1]).add_(eps).rsqrt_()
