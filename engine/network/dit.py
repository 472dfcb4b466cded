"""The causal diffusion transformer of the Wan2.1 family: the network and nothing else.

One class serves every size; a `DiTShape` says which. Parameters bear the names of the released checkpoints,
so a checkpoint loads strictly, and a model made on the meta device costs nothing until it does. There are two
ways in: `forward` runs whole clips under a block-causal mask (training, offline, tests) and is differentiable;
`forward_cached` runs the next frames of S independent rows against a memory of keys and values that is handed
in. It must not know schedules, noise levels, what is evicted from the memory, or where weights come from.

Shape letters: B batch (S: rows of the stream batch), C latent channels, F latent frames, h w latent size,
L tokens (F times (h/2)(w/2)), T tokens of the text, E width of a text embedding, D width of the network,
H heads, K width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from engine.models.spec import DiTShape
from engine.network import cpu_inplace
from engine.network.attention import attend
from engine.network.rope import Rope, rope_for, rotate


class Memory(Protocol):
    """Keys and values that self-attention has seen before."""

    def append(self, layer: int, k_BLHK: Tensor, v_BLHK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Remember the new tokens; returns the keys and values that they may look at, their own too, and a mask."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Time:
    """What the network makes of the timesteps: `e_BFD` for the head, `e0_BF6D` for the blocks."""

    e_BFD: Tensor
    e0_BF6D: Tensor


TextKeys = Sequence[tuple[Tensor, Tensor]]
"""Per block the keys and values of the text for cross-attention: [B, T, H, K] both, or, `CrossAttention.folded`,
keys [T, H, K] and rows [H T, D]."""


class Fused(nn.Module):
    """Linear layers of one input as one matmul. Its tensors belong to no checkpoint."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.cat([layer.weight.detach() for layer in layers]), persistent=False)
        self.register_buffer("bias", torch.cat([layer.bias.detach() for layer in layers]), persistent=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The layers' outputs side by side."""
        return functional.linear(x_BLD, self.weight, self.bias)


class SelfAttention(nn.Module):
    """Attention among the tokens of the video; q and k are normalised over the whole width, then rotated (RoPE)."""

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
        """Mix the tokens `x_BLD`, with each other under `mask_LL` or with all that `memory` offers."""
        if cpu_inplace.applies(x_BLD):
            q, k, v = self.linear_qkv(x_BLD)
            q = cpu_inplace.normalise_and_rotate(q, self.norm_q.weight, self.eps, rotation_BL1P)
            k = cpu_inplace.normalise_and_rotate(k, self.norm_k.weight, self.eps, rotation_BL1P)
            v = v.unflatten(-1, (self.heads, -1))
        else:
            q, k, v = self.project(x_BLD)
            q, k = rotate(q, rotation_BL1P), rotate(k, rotation_BL1P)
        if memory is not None:
            k, v, mask_LL = memory.append(layer, k, v)
        return self.o(attend(q, k, v, mask_LL).flatten(2))

    def project(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised queries and keys, and values: [B, L, H, K] each."""
        q, k, v = self.linear_qkv(x_BLD)
        return tuple(part.unflatten(-1, (self.heads, -1)) for part in (self.norm_q(q), self.norm_k(k), v))

    def linear_qkv(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as they leave their linear layers: [B, L, D] each."""
        if self.qkv is None:
            return self.q(x_BLD), self.k(x_BLD), self.v(x_BLD)
        return self.qkv(x_BLD).chunk(3, dim=-1)

    def fuse(self) -> None:
        """Project to queries, keys and values in one matmul from now on; their weights become views of one."""
        parts = (self.q, self.k, self.v)
        self.qkv = fused = Fused(parts)
        for part, weight, bias in zip(parts, fused.weight.chunk(3), fused.bias.chunk(3), strict=True):
            part.weight, part.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)


class CrossAttention(nn.Module):
    """Attention from the tokens of the video to those of the text. No text token is masked."""

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        dim = shape.dim
        self.heads, self.eps = shape.heads, shape.eps
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = nn.RMSNorm(dim, eps=shape.eps)
        self.norm_k = nn.RMSNorm(dim, eps=shape.eps)

    def keys(self, text_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, T, H, K] of an embedded text; they hold as long as the text does."""
        k = self.norm_k(self.k(text_BTD)).unflatten(-1, (self.heads, -1))
        return k, self.v(text_BTD).unflatten(-1, (self.heads, -1))

    def folded(self, keys: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The same text for `add`, on a CPU: its values go through the last linear layer once instead of every time.

        Where that is more work, because the text is long, they stay as they are.
        """
        k_BTHK, v_BTHK = keys
        batch, tokens, heads, _ = k_BTHK.shape
        if not cpu_inplace.applies(k_BTHK) or not isinstance(self.o, nn.Linear) or batch > 1:
            return keys
        if heads * tokens >= len(self.o.weight):
            return keys
        return k_BTHK[0], cpu_inplace.folded(v_BTHK[0], self.o.weight, self.o.bias)

    def add(self, x_BLD: Tensor, y_BLD: Tensor, keys: tuple[Tensor, Tensor], bias_T: Tensor | None) -> Tensor:
        """The tokens `x_BLD` and what they, normalised to `y_BLD`, read from the text."""
        if keys[1].dim() == 2:
            return cpu_inplace.add_text(x_BLD, self.q(y_BLD), self.norm_q.weight, self.eps, *keys, bias_T)
        return x_BLD + self(y_BLD, keys, bias_T)

    def forward(self, x_BLD: Tensor, keys: tuple[Tensor, Tensor], bias_T: Tensor | None = None) -> Tensor:
        """What the tokens `x_BLD` read from the text; `bias_T` is added to the logits of its tokens."""
        return self.o(self.read(self.queries(x_BLD), keys, bias_T))

    def queries(self, x_BLD: Tensor) -> Tensor:
        """Normalised queries [B, L, H, K] of the tokens."""
        q = self.q(x_BLD)
        q = cpu_inplace.normalise(q, self.norm_q.weight, self.eps) if cpu_inplace.applies(q) else self.norm_q(q)
        return q.unflatten(-1, (self.heads, -1))

    def read(self, q_BLHK: Tensor, keys: tuple[Tensor, Tensor], bias_T: Tensor | None = None) -> Tensor:
        """What the queries find, before the last linear layer: [B, L, D]."""
        size = q_BLHK.shape
        if keys[0].shape[0] == 1:
            q_BLHK = q_BLHK.flatten(0, 1)[None]  # one text for all rows: one long row of queries
        mask = None if bias_T is None else bias_T.expand(1, 1, q_BLHK.shape[1], -1)
        return attend(q_BLHK, *keys, mask).reshape(size).flatten(2)


class FeedForward(nn.Sequential):
    """Two linear layers and the GELU between them."""

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Every token for itself: [B, L, D] to [B, L, D]."""
        up, _, down = self
        if cpu_inplace.applies(x_BLD) and isinstance(up, nn.Linear) and isinstance(down, nn.Linear):
            return cpu_inplace.feed_forward(x_BLD, up.weight, up.bias, down.weight, down.bias)
        return super().forward(x_BLD)


class Block(nn.Module):
    """Self-attention and feed-forward, shifted, scaled and gated by time; cross-attention without a gate."""

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
        text_bias_T: Tensor | None = None,
    ) -> Tensor:
        """One layer of the network: [B, L, D] to [B, L, D], where `lean` applies in the tensor that came in."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + e0_BF6D).unbind(2)
        y = modulate(self.norm1(x_BLD), shift1, scale1)
        x_BLD = gate(x_BLD, self.self_attn(y, rotation_BL1P, mask_LL, memory, layer), gate1)
        x_BLD = self.cross_attn.add(x_BLD, self.norm3(x_BLD), text_keys, text_bias_T)
        y = modulate(self.norm2(x_BLD), shift2, scale2)
        return gate(x_BLD, self.ffn(y), gate2)


class Head(nn.Module):
    """The last norm, shifted and scaled by time, and the projection back to patches."""

    def __init__(self, shape: DiTShape, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.dim, eps=shape.eps, elementwise_affine=False)
        self.head = nn.Linear(shape.dim, outputs)
        self.modulation = nn.Parameter(torch.empty(1, 2, shape.dim))

    def forward(self, x_BLD: Tensor, e_BFD: Tensor) -> Tensor:
        """Tokens [B, L, D] to patches [B, L, outputs]."""
        shift, scale = (self.modulation + e_BFD[:, :, None]).unbind(2)
        return self.head(modulate(self.norm(x_BLD), shift, scale))


class CausalDiT(nn.Module):
    """The network. Its output has the input's shape; what it means is `Schedule.prediction`."""

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        self.shape = shape
        dim, patch = shape.dim, shape.patch
        self.patch_embedding = nn.Conv3d(shape.latent_channels, dim, kernel_size=patch, stride=patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(shape.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(shape.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.head = Head(shape, patch[0] * patch[1] * patch[2] * shape.latent_channels)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Random weights (Xavier linear maps, zero biases, unit norms), for training and for tests."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv3d)):
                fan_out, fan_in = module.weight.shape[0], module.weight[0].numel()
                bound = (6.0 / (fan_in + fan_out)) ** 0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                assert module.bias is not None
                module.bias.zero_()
            elif isinstance(module, (nn.RMSNorm, nn.LayerNorm)) and module.weight is not None:
                module.reset_parameters()
            elif isinstance(module, (Block, Head)):
                module.modulation.normal_(std=self.shape.dim**-0.5, generator=generator)

    def forward(
        self,
        x_BCFhw: Tensor,
        t_BF: Tensor,
        text_BTE: Tensor,
        *,
        frames_per_block: int | None = 1,
        start: int = 0,
    ) -> Tensor:
        """Whole clips at once: every frame sees its own block of frames and all earlier blocks.

        Args:
            x_BCFhw: noisy latents; h and w even.
            t_BF: timesteps 0..1000, one per frame; [B, 1] when all frames share one.
            text_BTE: prompt embeddings, zero after the last token.
            frames_per_block: latent frames that see each other both ways; None: all of them.
            start: number of the first frame on the time axis.

        Returns:
            The prediction, [B, C, F, h, w], in the type of the parameters.
        """
        batch, _, frames, height, width = x_BCFhw.shape
        rows, columns = height // self.shape.patch[1], width // self.shape.patch[2]
        rope = rope_for(self.shape, rows, columns, x_BCFhw.device)
        numbers = torch.arange(start, start + frames, device=x_BCFhw.device)
        mask = None
        if frames_per_block is not None and frames > frames_per_block:
            mask = block_causal_mask(frames, rows * columns, frames_per_block, x_BCFhw.device)
        time = self.time(t_BF.expand(batch, frames))
        return self._run(x_BCFhw, time, self.text_keys(self.embed_text(text_BTE)), rope.at(numbers[None]), mask, None)

    def forward_cached(
        self,
        x_SCFhw: Tensor,
        time: Time,
        text_keys: TextKeys,
        frames_SF: Tensor,
        rope: Rope,
        memory: Memory,
        text_bias_T: Tensor | None = None,
    ) -> Tensor:
        """The next F frames of S rows, each row at its own place in time and with its own past.

        Args:
            x_SCFhw: noisy latents.
            time: from `time`, [S, F, ...].
            text_keys: from `text_keys`; a batch of 1 serves every row.
            frames_SF: int64, the frames' numbers on the time axis.
            rope: from `rope_for`, for this size.
            memory: where self-attention keeps and finds keys and values.
            text_bias_T: see `CrossAttention`; the logarithm of a number makes one token stand for so many.

        Returns:
            The prediction, [S, C, F, h, w].
        """
        return self._run(x_SCFhw, time, text_keys, rope.at(frames_SF), None, memory, text_bias_T)

    def _run(
        self,
        x_BCFhw: Tensor,
        time: Time,
        text_keys: TextKeys,
        rotation_BL1P: Tensor,
        mask_LL: Tensor | None,
        memory: Memory | None,
        text_bias_T: Tensor | None = None,
    ) -> Tensor:
        frames, height, width = x_BCFhw.shape[2:]
        x_BLD = self.embed_patches(x_BCFhw)
        for layer, block in enumerate(self.blocks):
            x_BLD = block(x_BLD, time.e0_BF6D, rotation_BL1P, text_keys[layer], mask_LL, memory, layer, text_bias_T)
        return self.unembed_patches(x_BLD, time.e_BFD, (frames, height, width))

    def fuse(self) -> None:
        """Fuse linear layers of the same input from now on (for inference). The parameters keep their names."""
        for block in self.blocks:
            attention = cast(Block, block).self_attn
            if attention.qkv is None:
                attention.fuse()

    def embed_patches(self, x_BCFhw: Tensor) -> Tensor:
        """Cut the latents into patches and embed each: [B, L, D]."""
        pf, ph, pw = self.shape.patch
        conv = self.patch_embedding
        patches = rearrange(x_BCFhw, "b c (f pf) (h ph) (w pw) -> b (f h w) (c pf ph pw)", pf=pf, ph=ph, pw=pw)
        return functional.linear(patches.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)

    def unembed_patches(self, x_BLD: Tensor, e_BFD: Tensor, size: tuple[int, int, int]) -> Tensor:
        """Tokens to the prediction [B, C, F, h, w] of `size` F, h, w."""
        pf, ph, pw = self.shape.patch
        return rearrange(
            self.head(x_BLD, e_BFD),
            "b (f h w) (pf ph pw c) -> b c (f pf) (h ph) (w pw)",
            f=size[0] // pf,
            h=size[1] // ph,
            w=size[2] // pw,
            pf=pf,
            ph=ph,
            pw=pw,
        )

    def embed_text(self, text_BTE: Tensor) -> Tensor:
        """Prompt embeddings [B, T, E] to the network's width [B, T, D]."""
        return self.text_embedding(text_BTE.to(self.patch_embedding.weight.dtype))

    def text_keys(self, text_BTD: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of an embedded text for every block; compute them once per prompt."""
        return [cast(Block, block).cross_attn.keys(text_BTD) for block in self.blocks]

    def fold_text(self, keys: TextKeys) -> list[tuple[Tensor, Tensor]]:
        """What `text_keys` gave, with less work for every forward where `CrossAttention.folded` knows how."""
        return [cast(Block, block).cross_attn.folded(own) for block, own in zip(self.blocks, keys, strict=True)]

    def time(self, t_BF: Tensor) -> Time:
        """What the network makes of timesteps (0..1000, any real or integer type)."""
        dtype = self.patch_embedding.weight.dtype
        e_BFD = self.time_embedding(sinusoid(t_BF, self.shape.freq_dim).to(dtype))
        return Time(e_BFD, self.time_projection(e_BFD).unflatten(-1, (6, -1)))


def sinusoid(t_BF: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps, cosines first: fp64 [B, F, width]."""
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t_BF.device) / half)
    angle = t_BF.double()[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def block_causal_mask(frames: int, tokens: int, frames_per_block: int, device: torch.device) -> Tensor:
    """Bool [F tokens, F tokens], True where a query's block of frames is the key's block or a later one."""
    block = torch.arange(frames, device=device).repeat_interleave(tokens) // frames_per_block
    return block[:, None] >= block[None, :]


def modulate(x_BLD: Tensor, shift_BFD: Tensor, scale_BFD: Tensor) -> Tensor:
    """x (1 + scale) + shift, each frame's tokens with their frame's; overwrites x where `lean` applies."""
    if cpu_inplace.applies(x_BLD):
        return cpu_inplace.modulate(x_BLD, shift_BFD, scale_BFD)
    x_BFLD = x_BLD.unflatten(1, (shift_BFD.shape[1], -1))
    return torch.addcmul(shift_BFD[:, :, None], x_BFLD, 1 + scale_BFD[:, :, None]).flatten(1, 2)


def gate(x_BLD: Tensor, y_BLD: Tensor, gate_BFD: Tensor) -> Tensor:
    """x + gate y, each frame's tokens with their frame's; overwrites x where `lean` applies."""
    if cpu_inplace.applies(x_BLD):
        return cpu_inplace.gate(x_BLD, y_BLD, gate_BFD)
    frames = gate_BFD.shape[1]
    x_BFLD, y_BFLD = x_BLD.unflatten(1, (frames, -1)), y_BLD.unflatten(1, (frames, -1))
    return torch.addcmul(x_BFLD, y_BFLD, gate_BFD[:, :, None]).flatten(1, 2)
