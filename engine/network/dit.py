"""The causal diffusion transformer (DiT) of the Wan2.1 family.

One class serves all sizes; a `DiTShape` holds them. Parameters have the names of the released checkpoints, so that a
checkpoint can be loaded with `strict=True`. The network can be run in two ways. `forward` runs whole clips under a
block-causal mask, for training and tests, and is differentiable. The methods of `StreamingNetwork` run the next frames
of S independent rows, with the keys and values of earlier frames in a `Memory`.

Shape letters: B batch (S: rows of the stream batch), C latent channels, F latent frames, h w latent size,
L tokens (F times (h/2)(w/2)), X tokens of the text, E width of a text embedding, D width of the network,
J heads, K width of a head, P complex pairs of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from engine.network.dit_layers import Block, Head, Time
from engine.network.dit_pieces import compile_blocks
from engine.network.dit_shape import DiTShape
from engine.network.protocol import LinearPlace, Memory, TextKeys
from engine.network.rope import Rope, rope_for
from engine.runtime.device import release_freed


class CausalDiT(nn.Module):
    """The network. Its output has the shape of its input; `Schedule.prediction` says what it predicts."""

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        self.shape = shape
        dim, patch = shape.dim, shape.patch
        channels = shape.latent_channels + shape.source_channels
        self.patch_embedding = nn.Conv3d(channels, dim, kernel_size=patch, stride=patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(shape.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(shape.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.head = Head(shape, patch[0] * patch[1] * patch[2] * shape.latent_channels)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialise the weights for training or tests: linear layers Xavier uniform, biases 0, norms 1."""
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
        text_BXE: Tensor,
        *,
        frames_per_block: int | None = 1,
        start: int = 0,
    ) -> Tensor:
        """Run whole clips: every frame attends to its own block of frames and to all earlier blocks.

        Args:
            x_BCFhw: noisy latents; h and w are multiples of the patch size.
            t_BF: timesteps 0..1000, one per frame, or [B, 1] for all frames.
            text_BXE: prompt embeddings, zero after the last token.
            frames_per_block: latent frames of a block, which attend to each other in both directions; None for one
                block of all frames.
            start: position of the first frame on the time axis.

        Returns:
            The prediction [B, C, F, h, w] in the type of the parameters.
        """
        batch, _, frames, height, width = x_BCFhw.shape
        rows, columns = height // self.shape.patch[1], width // self.shape.patch[2]
        rope = rope_for(self.shape, rows, columns, x_BCFhw.device)
        numbers = torch.arange(start, start + frames, device=x_BCFhw.device)
        mask = None
        if frames_per_block is not None and frames > frames_per_block:
            mask = block_causal_mask(frames, rows * columns, frames_per_block, x_BCFhw.device)
        time, rotation_BL1P = self.time(t_BF.expand(batch, frames)), rope.at(numbers[None])
        x_BLD = self.embed(x_BCFhw)
        for block, keys in zip(self.blocks, self.text_keys(self.embed_text(text_BXE)), strict=True):
            x_BLD = block(x_BLD, time.e0_BF6D, rotation_BL1P, keys, mask)
        return self.unembed(x_BLD, time.e_BFD, (frames, height, width))

    def embed(self, x_BCFhw: Tensor) -> Tensor:
        """Cut the latents into patches and embed each as a token: [B, L, D]."""
        pf, ph, pw = self.shape.patch
        conv = self.patch_embedding
        patches = rearrange(x_BCFhw, "b c (f pf) (h ph) (w pw) -> b (f h w) (c pf ph pw)", pf=pf, ph=ph, pw=pw)
        return functional.linear(patches.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)

    def unembed(self, x_BLD: Tensor, e_BFD: Tensor, size: tuple[int, int, int]) -> Tensor:
        """Turn tokens into the prediction [B, C, F, h, w] of `size` (F, h, w)."""
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

    @property
    def dtype(self) -> torch.dtype:
        """See `StreamingNetwork`."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """See `StreamingNetwork`."""
        return self.patch_embedding.weight.device

    @property
    def source_channels(self) -> int:
        """See `StreamingNetwork`."""
        return self.shape.source_channels

    @property
    def takes_turns(self) -> bool:
        """See `StreamingNetwork`, and `dit_layers.recall`."""
        return True

    @property
    def text_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of a prompt's keys and values, [X, J, K] each."""
        size = (self.shape.text_len, self.shape.heads, self.shape.head_dim)
        return size, size

    def fuse(self) -> None:
        """Fuse linear layers that have the same input, for inference. The parameters keep their names."""
        separate = [block.self_attn for block in cast(Iterable[Block], self.blocks) if block.self_attn.qkv is None]
        for attention in separate:
            attention.fuse()
        if separate:
            release_freed(self.device)  # as gaps between tensors, the old weights would be too small for larger tensors

    def tables(self, height: int, width: int, timesteps_N: Tensor) -> DiTTables:
        """See `StreamingNetwork`."""
        rope = rope_for(self.shape, height // self.shape.patch[1], width // self.shape.patch[2], self.device)
        with torch.inference_mode():
            return DiTTables(self.time(timesteps_N.to(self.device)[None]), rope)

    def renew_tables(self, tables: DiTTables, timesteps_N: Tensor) -> None:
        """See `StreamingNetwork`. RoPE depends on no weights."""
        time = self.time(timesteps_N.to(self.device)[None])
        tables.time.e_BFD.copy_(time.e_BFD)
        tables.time.e0_BF6D.copy_(time.e0_BF6D)

    def run_block(
        self,
        layer: int,
        x_SLD: Tensor,
        context: DiTContext,
        text: tuple[Tensor, ...],
        memory: Memory,
        text_bias_X: Tensor | None = None,
    ) -> Tensor:
        """See `StreamingNetwork`."""
        keys, values = text
        block: Tensor = self.blocks[layer](
            x_SLD, context.time.e0_BF6D, context.rotation_SL1P, (keys, values), None, memory, layer, text_bias_X
        )
        return block

    def predict(self, x_SLD: Tensor, context: DiTContext, size: tuple[int, int, int]) -> Tensor:
        """See `StreamingNetwork`."""
        return self.unembed(x_SLD, context.time.e_BFD, size)

    def read_text(
        self, embedding_XE: Tensor, *, whole: bool, layers: Sequence[int] | None = None
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """Keys and values [1, X, J, K] of a prompt for the blocks, and the bias of its tokens' logits.

        The zero rows after a prompt all have the same keys and values. To attend to one of them, with the logarithm of
        their number added to its logits, gives the same result with less work. `whole` keeps all of them and needs no
        bias. It is used on GPUs, where attention kernels are slower with a bias, and when all prompts must have the
        same shapes.
        """
        length = tokens = embedding_XE.shape[0]
        if not whole:
            used = embedding_XE.any(dim=1).nonzero()
            tokens = min(int(used.max()) + 2 if len(used) else 1, length)
        keys = self.text_keys(self.embed_text(embedding_XE[None, :tokens].to(self.device)), layers)
        if tokens == length:
            return keys, None
        bias_X = torch.zeros(tokens, device=self.device, dtype=self.dtype)
        bias_X[-1] = math.log(length - tokens + 1)
        return keys, bias_X

    def embed_text(self, text_BXE: Tensor) -> Tensor:
        """Project prompt embeddings [B, X, E] to the network's width: [B, X, D]."""
        embedded: Tensor = self.text_embedding(text_BXE.to(self.dtype))
        return embedded

    def text_keys(self, text_BXD: Tensor, layers: Sequence[int] | None = None) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of an embedded text for the blocks. They can be reused as long as the prompt is the same."""
        chosen = range(len(self.blocks)) if layers is None else layers
        return [cast(Block, self.blocks[layer]).cross_attn.keys(text_BXD) for layer in chosen]

    def fold_text(self, keys: TextKeys, layers: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """See `StreamingNetwork`, and `CrossAttention.folded`."""
        folded: list[tuple[Tensor, ...]] = []
        for layer, own in zip(layers, keys, strict=True):
            k_BXJK, v_BXJK = own
            folded.append(cast(Block, self.blocks[layer]).cross_attn.folded((k_BXJK, v_BXJK)))
        return folded

    def new_block(self) -> Block:
        """See `StreamingNetwork`."""
        with torch.device("meta"):
            return Block(self.shape)

    def linears(self) -> Iterator[LinearPlace]:
        """See `StreamingNetwork`. Not included are the text's keys and values, the embeddings and the head."""
        for module in self.blocks:
            block = cast(Block, module)
            own, cross = block.self_attn, block.cross_attn
            yield LinearPlace(own, "qkv", views=("q", "k", "v"))
            yield LinearPlace(own, "o")
            yield LinearPlace(cross, "q")
            yield LinearPlace(cross, "o")
            yield LinearPlace(block.ffn, "0")
            yield LinearPlace(block.ffn, "2")

    def compile(self, compiler: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """See `StreamingNetwork` and `dit_pieces`. (`nn.Module.compile` would compile attention too.)"""
        compile_blocks([cast(Block, block) for block in self.blocks], compiler)

    def time(self, t_BF: Tensor) -> Time:
        """Time embeddings of timesteps (0..1000, any real or integer type)."""
        e_BFD = self.time_embedding(sinusoid(t_BF, self.shape.freq_dim).to(self.dtype))
        return Time(e_BFD, self.time_projection(e_BFD).unflatten(-1, (6, -1)))


@dataclass(frozen=True, slots=True, eq=False)
class DiTContext:
    """What blocks and head need in a forward: time embeddings, and the RoPE rotations of the tokens."""

    time: Time
    rotation_SL1P: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DiTTables:
    """`Tables` of one latent size: embeddings of the timesteps [1, N, ...], and RoPE rotations."""

    time: Time
    rope: Rope

    def at(self, t_S: Tensor, positions_SF: Tensor) -> DiTContext:
        """See `Tables`."""
        frames = positions_SF.shape[1]
        time = Time(
            self.time.e_BFD[0, t_S, None].expand(-1, frames, -1),
            self.time.e0_BF6D[0, t_S, None].expand(-1, frames, -1, -1),
        )
        return DiTContext(time, self.rope.at(positions_SF))


def sinusoid(t_BF: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps: fp64 [B, F, width], cosines in the first half."""
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t_BF.device) / half)
    angle = t_BF.double()[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def block_causal_mask(frames: int, tokens: int, frames_per_block: int, device: torch.device) -> Tensor:
    """Bool mask [F tokens, F tokens]: True where the query's block of frames is the key's block or a later one."""
    block = torch.arange(frames, device=device).repeat_interleave(tokens) // frames_per_block
    return block[:, None] >= block[None, :]
