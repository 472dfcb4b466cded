"""Scaled dot-product attention: one function for the whole engine, the only place where a backend could be chosen.

Knows nothing of caches, rotary positions or models: it is given queries, keys and values and returns their
mixture. Today torch chooses the kernel, by device, type and shape.

Shape letters: B batch, L queries, M keys, H heads, D width of a head.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(q_BLHD: Tensor, k_BMHD: Tensor, v_BMHD: Tensor, mask_LM: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, per head.

    Args:
        q_BLHD: queries.
        k_BMHD, v_BMHD: keys and values, with any strides.
        mask_LM: broadcastable to [B, H, L, M]: bool, True where a query may look, or numbers that are added to
            the likeness of query and key; None: look everywhere.

    Returns:
        [B, L, H, D], in memory order B L H D or B H L D as the backend likes.
    """
    out_BHLD = scaled_dot_product_attention(
        q_BLHD.transpose(1, 2), k_BMHD.transpose(1, 2), v_BMHD.transpose(1, 2), attn_mask=mask_LM
    )
    return out_BHLD.transpose(1, 2)
