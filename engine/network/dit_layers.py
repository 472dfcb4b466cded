"""Layers of the causal diffusion transformer of the Wan2.1 family, named as in the released checkpoints.

Shape letters: B batch (S: rows of the stream batch), F latent frames, L tokens, X tokens of the text, E width of a
text embedding, D width of the network, J heads, K width of a head, P complex pairs of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.network import cpu_inplace
from engine.network.attention import attend
from engine.network.dit_shape import DiTShape
from engine.network.protocol import InTurns, Memory
from engine.network.rope import rotate


@dataclass(frozen=True, slots=True, eq=False)
class Time:
    """Time embeddings of each frame: `e_BFD` for the head, and `e0_BF6D`, its projection for the blocks."""

    e_BFD: Tensor
    e0_BF6D: Tensor


class Fused(nn.Module):
    """Several linear layers with the same input as one matmul. Its tensors are not part of the state dict."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.cat([layer.weight.detach() for layer in layers]), persistent=False)
        self.register_buffer("bias", torch.cat([layer.bias.detach() for layer in layers]), persistent=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The layers' outputs, concatenated."""
        return functional.linear(x_BLD, self.weight, self.bias)


class SelfAttention(nn.Module):
    """Self-attention of the video tokens. Queries and keys get an RMS norm over the whole width, and then RoPE."""

    qkv: nn.Module | None

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        dim = shape.dim
        self.heads, self.eps = shape.heads, shape.eps
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = nn.RMSNorm(dim, eps=shape.eps)
        self.norm_k = nn.RMSNorm(dim, eps=shape.eps)
        self.qkv = None

    def forward(
        self,
        x_BLD: Tensor,
        rotation_BL1P: Tensor,
        mask_LL: Tensor | None = None,
        memory: Memory | None = None,
        layer: int = 0,
    ) -> Tensor:
        """[B, L, D] to [B, L, D].

        Args:
            x_BLD: tokens.
            rotation_BL1P: RoPE rotations from `Rope.at`.
            mask_LL: mask as for `attend`; not used with `memory`.
            memory: KV cache: the tokens attend to all keys and values that it returns.
            layer: this layer's index in `memory`.
        """
        if cpu_inplace.applies(x_BLD):
            q, k, v = self.linear_qkv(x_BLD)
            q = cpu_inplace.normalise_and_rotate(q, self.norm_q.weight, self.eps, rotation_BL1P)
            k = cpu_inplace.normalise_and_rotate(k, self.norm_k.weight, self.eps, rotation_BL1P)
            v = v.unflatten(-1, (self.heads, -1))
        else:
            q, k, v = self.project(x_BLD)
            q, k = rotate(q, rotation_BL1P), rotate(k, rotation_BL1P)
        mixed = attend(q, k, v, mask_LL) if memory is None else recall(memory, layer, q, k, v)
        return self.o(mixed.flatten(2))

    def project(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys after their norms, and values: [B, L, J, K] each."""
        q, k, v = self.linear_qkv(x_BLD)
        return tuple(part.unflatten(-1, (self.heads, -1)) for part in (self.norm_q(q), self.norm_k(k), v))

    def linear_qkv(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values before norms: [B, L, D] each."""
        if self.qkv is None:
            return self.q(x_BLD), self.k(x_BLD), self.v(x_BLD)
        return self.qkv(x_BLD).chunk(3, dim=-1)

    def fuse(self) -> None:
        """Compute queries, keys and values in one matmul from now on. Their weights become views of its weight."""
        parts = (self.q, self.k, self.v)
        self.qkv = fused = Fused(parts)
        for part, weight, bias in zip(parts, fused.weight.chunk(3), fused.bias.chunk(3), strict=True):
            part.weight, part.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)


class CrossAttention(nn.Module):
    """Cross-attention from the video tokens to the text tokens. No text token is masked."""

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        dim = shape.dim
        self.heads, self.eps = shape.heads, shape.eps
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = nn.RMSNorm(dim, eps=shape.eps)
        self.norm_k = nn.RMSNorm(dim, eps=shape.eps)

    def keys(self, text_BXD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, X, J, K] of an embedded text; they stay the same until the text changes."""
        k = self.norm_k(self.k(text_BXD)).unflatten(-1, (self.heads, -1))
        return k, self.v(text_BXD).unflatten(-1, (self.heads, -1))

    def folded(self, keys: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Multiply the values by the output layer in advance, for `add` on a CPU. So a forward has one matmul less.

        Returns:
            Keys [X, J, K] and multiplied values [J X, D]; or `keys` unchanged where this does not apply or, because
            the text is long, would be more work.
        """
        k_BXJK, v_BXJK = keys
        batch, tokens, heads, _ = k_BXJK.shape
        if not cpu_inplace.applies(k_BXJK) or not isinstance(self.o, nn.Linear) or batch > 1:
            return keys
        if heads * tokens >= len(self.o.weight):
            return keys
        return k_BXJK[0], cpu_inplace.folded(v_BXJK[0], self.o.weight, self.o.bias)

    def add(self, x_BLD: Tensor, y_BLD: Tensor, keys: tuple[Tensor, Tensor], bias_X: Tensor | None) -> Tensor:
        """`x_BLD` plus the output of cross-attention for its normalised tokens `y_BLD`; `keys` may be `folded`."""
        if keys[1].dim() == 2:
            return cpu_inplace.add_text(x_BLD, self.q(y_BLD), self.norm_q.weight, self.eps, *keys, bias_X)
        return x_BLD + self(y_BLD, keys, bias_X)

    def forward(self, x_BLD: Tensor, keys: tuple[Tensor, Tensor], bias_X: Tensor | None = None) -> Tensor:
        """[B, L, D] to [B, L, D]; `bias_X` is added to the logits of the text tokens."""
        return self.o(self.read(self.queries(x_BLD), keys, bias_X))

    def queries(self, x_BLD: Tensor) -> Tensor:
        """Queries [B, L, J, K] after their norm."""
        q = self.q(x_BLD)
        q = cpu_inplace.normalise(q, self.norm_q.weight, self.eps) if cpu_inplace.applies(q) else self.norm_q(q)
        return q.unflatten(-1, (self.heads, -1))

    def read(self, q_BLJK: Tensor, keys: tuple[Tensor, Tensor], bias_X: Tensor | None = None) -> Tensor:
        """Attention of the queries to the text, without the output layer: [B, L, D]."""
        size = q_BLJK.shape
        if keys[0].shape[0] == 1:
            q_BLJK = q_BLJK.flatten(0, 1)[None]  # one text for all rows: the queries of all rows as one row
        mask = None if bias_X is None else bias_X.expand(1, 1, q_BLJK.shape[1], -1)
        return attend(q_BLJK, *keys, mask).reshape(size).flatten(2)


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def forward(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D], token by token."""
        up, _, down = self
        if cpu_inplace.applies(x_BLD) and isinstance(up, nn.Linear) and isinstance(down, nn.Linear):
            return cpu_inplace.feed_forward(x_BLD, up.weight, up.bias, down.weight, down.bias)
        return super().forward(x_BLD)


class Block(nn.Module):
    """One block: self-attention and feed-forward with modulation (shift, scale, gate) by time, and cross-attention."""

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        dim, eps = shape.dim, shape.eps
        self.norm1 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.self_attn = SelfAttention(shape)
        self.norm3 = nn.LayerNorm(dim, eps=eps)
        self.cross_attn = CrossAttention(shape)
        self.norm2 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.ffn = FeedForward(nn.Linear(dim, shape.ffn), nn.GELU(approximate="tanh"), nn.Linear(shape.ffn, dim))
        self.modulation = nn.Parameter(torch.empty(1, 6, dim))

    def forward(
        self,
        x_BLD: Tensor,
        e0_BF6D: Tensor,
        rotation_BL1P: Tensor,
        text_keys: tuple[Tensor, Tensor],
        mask_LL: Tensor | None = None,
        memory: Memory | None = None,
        layer: int = 0,
        text_bias_X: Tensor | None = None,
    ) -> Tensor:
        """[B, L, D] to [B, L, D]. Where `cpu_inplace` applies, the result overwrites `x_BLD`.

        Args:
            x_BLD: tokens.
            e0_BF6D: time embeddings for shift, scale and gate.
            rotation_BL1P, mask_LL, memory, layer: as for `SelfAttention`.
            text_keys: the text's keys and values, for `CrossAttention.add`.
            text_bias_X: added to the logits of the text tokens.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + e0_BF6D).unbind(2)
        y = modulate(self.norm1(x_BLD), shift1, scale1)
        x_BLD = gate(x_BLD, self.self_attn(y, rotation_BL1P, mask_LL, memory, layer), gate1)
        x_BLD = self.cross_attn.add(x_BLD, self.norm3(x_BLD), text_keys, text_bias_X)
        y = modulate(self.norm2(x_BLD), shift2, scale2)
        return gate(x_BLD, self.ffn(y), gate2)


class Head(nn.Module):
    """The last norm, with shift and scale by time, and the projection of tokens to patches."""

    def __init__(self, shape: DiTShape, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.dim, eps=shape.eps, elementwise_affine=False)
        self.head = nn.Linear(shape.dim, outputs)
        self.modulation = nn.Parameter(torch.empty(1, 2, shape.dim))

    def forward(self, x_BLD: Tensor, e_BFD: Tensor) -> Tensor:
        """Tokens [B, L, D] to patches [B, L, outputs]."""
        shift, scale = (self.modulation + e_BFD[:, :, None]).unbind(2)
        return self.head(modulate(self.norm(x_BLD), shift, scale))


def recall(memory: Memory, layer: int, q_BLJK: Tensor, k_BLJK: Tensor, v_BLJK: Tensor) -> Tensor:
    """Attention of new tokens to a memory, in which their keys and values are stored first: [B, L, J, K].

    Where the rows take turns, each is stored and attended to by itself, so that a kernel has the shapes of a forward of
    one row, and nothing is copied or masked.
    """
    if isinstance(memory, InTurns):
        rows = (slice(row, row + 1) for row in range(len(memory.memories)))
        turns = zip(memory.memories, rows, strict=True)
        return torch.cat([recall(own, layer, q_BLJK[row], k_BLJK[row], v_BLJK[row]) for own, row in turns])
    keys, values, mask = memory.append(layer, k_BLJK, v_BLJK)
    return attend(q_BLJK, keys, values, mask)


def modulate(x_BLD: Tensor, shift_BFD: Tensor, scale_BFD: Tensor) -> Tensor:
    """x (1 + scale) + shift, with shift and scale of each token's frame; overwrites x where `cpu_inplace` applies."""
    if cpu_inplace.applies(x_BLD):
        return cpu_inplace.modulate(x_BLD, shift_BFD, scale_BFD)
    x_BFLD = x_BLD.unflatten(1, (shift_BFD.shape[1], -1))
    return torch.addcmul(shift_BFD[:, :, None], x_BFLD, 1 + scale_BFD[:, :, None]).flatten(1, 2)


def gate(x_BLD: Tensor, y_BLD: Tensor, gate_BFD: Tensor) -> Tensor:
    """x + gate y, with the gate of each token's frame; overwrites x where `cpu_inplace` applies."""
    if cpu_inplace.applies(x_BLD):
        return cpu_inplace.gate(x_BLD, y_BLD, gate_BFD)
    frames = gate_BFD.shape[1]
    x_BFLD, y_BFLD = x_BLD.unflatten(1, (frames, -1)), y_BLD.unflatten(1, (frames, -1))
    return torch.addcmul(x_BFLD, y_BFLD, gate_BFD[:, :, None]).flatten(1, 2)
