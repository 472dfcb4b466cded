"""Network of the toy family: each layer convolves a frame in space and mixes it with the mean of the cached frames.

Shape letters: S rows, L tokens (F h w), D width, C latent channels, F latent frames, h w latent size, T rows and E
width of a text embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.network.protocol import LinearPlace, Memory, TextKeys
from tests.support.toy_family.specs import ConvShape


@dataclass(frozen=True, slots=True)
class Context:
    """Share of the noise that is left, [S, 1, 1], and the size of a frame."""

    left_S11: Tensor
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConvTables:
    size: tuple[int, int]

    def at(self, t_S: Tensor, positions_SF: Tensor) -> Context:
        return Context((t_S / 1000.0)[:, None, None].float(), self.size)


class CausalConv(nn.Module):
    """In space a convolution, in time the mean of what was."""

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        self.space = nn.Conv2d(shape.width, shape.width, 3, padding=1)
        self.past = nn.Linear(shape.width, shape.width)
        self.prompt = nn.Linear(shape.text_dim, shape.width)

    def forward(self, x_SLD: Tensor, context: Context, text_1D: Tensor, memory: Memory, layer: int) -> Tensor:
        rows, length, _ = x_SLD.shape
        height, width = context.size
        image = x_SLD.view(-1, height, width, x_SLD.shape[-1]).permute(0, 3, 1, 2)
        here_SLD = self.space(image).permute(0, 2, 3, 1).reshape(rows, length, -1)
        _, values, mask = memory.append(layer, x_SLD[:, :, None], here_SLD[:, :, None])
        seen_SMD = values.flatten(2)
        weight_SM1 = torch.ones_like(seen_SMD[..., :1]) if mask is None else mask[:, 0, 0, :, None].to(seen_SMD.dtype)
        mean_S1D = (seen_SMD * weight_SM1).sum(1, keepdim=True) / weight_SM1.sum(1, keepdim=True)
        mixed = torch.tanh(here_SLD + self.past(mean_S1D) + text_1D[:, None])
        return x_SLD + context.left_S11.to(x_SLD.dtype) * mixed


class TwoConvolutions(nn.Module):
    """See `engine.network.protocol.StreamingNetwork`."""

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        self.shape = shape
        self.inward = nn.Linear(shape.latent_channels, shape.width)
        self.blocks = nn.ModuleList(CausalConv(shape) for _ in range(shape.layers))
        self.outward = nn.Linear(shape.width, shape.latent_channels)

    @property
    def dtype(self) -> torch.dtype:
        return self.inward.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.inward.weight.device

    @property
    def text_shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.shape.width,),)

    def fuse(self) -> None:
        pass

    @property
    def source_channels(self) -> int:
        return 0

    def tables(self, height: int, width: int, timesteps_N: Tensor) -> ConvTables:
        return ConvTables((height, width))

    @property
    def takes_turns(self) -> bool:
        return False

    def renew_tables(self, tables: ConvTables, timesteps_N: Tensor) -> None:
        pass

    def embed(self, x_SCFhw: Tensor) -> Tensor:
        return self.inward(x_SCFhw.permute(0, 2, 3, 4, 1).flatten(1, 3).to(self.dtype))

    def run_block(
        self,
        layer: int,
        x_SLD: Tensor,
        context: Context,
        text: tuple[Tensor, ...],
        memory: Memory,
        text_bias_T: Tensor | None = None,
    ) -> Tensor:
        return self.blocks[layer](x_SLD, context, text[0], memory, layer)

    def predict(self, x_SLD: Tensor, context: Context, size: tuple[int, int, int]) -> Tensor:
        return self.outward(x_SLD).unflatten(1, size).permute(0, 4, 1, 2, 3)

    def read_text(
        self, embedding_TE: Tensor, *, whole: bool, layers: Sequence[int] | None = None
    ) -> tuple[TextKeys, Tensor | None]:
        mean_1E = embedding_TE.mean(0, keepdim=True).to(self.device, self.dtype)
        chosen = self.blocks if layers is None else [self.blocks[layer] for layer in layers]
        return [(block.prompt(mean_1E),) for block in chosen], None

    def fold_text(self, keys: TextKeys, layers: Sequence[int]) -> TextKeys:
        return keys

    def new_block(self) -> nn.Module:
        with torch.device("meta"):
            return CausalConv(self.shape)

    def linears(self) -> Iterator[LinearPlace]:
        for block in self.blocks:
            yield LinearPlace(block, "past")

    def compile(self, compiler: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        pass
