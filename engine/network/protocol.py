"""What a network is to those who play it: the stream, its cache, prompts, the quantiser, the compiler, several GPUs.

A family of models brings a class that does this (`engine.network.dit.CausalDiT` is one); nothing outside a family may
ask for more. A network is a list of blocks between an embedding and a head. It is causal: what a block has to remember
of earlier frames it gives to a `Memory`, which gives back everything that the new frames may look at.

Shape letters: S rows of the stream batch, C latent channels, F latent frames, h w latent size, L tokens of a row,
D width of the network, J heads, K width of a head, E width and X tokens of a text embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

TIMESTEPS = 1000
"""Timesteps run from 0 (clean) to this (pure noise), as in Wan2.1's flow matching."""


class NetworkShape(Protocol):
    """Sizes of a network that others than its family need; a row of the model table holds one (`ModelSpec.network`)."""

    @property
    def layers(self) -> int:
        """Blocks."""
        ...

    @property
    def heads(self) -> int:
        """Heads of what the memory holds for a token."""
        ...

    @property
    def head_dim(self) -> int:
        """Width of one of these heads."""
        ...

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        ...

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns that make one token."""
        ...

    @property
    def text_len(self) -> int:
        """Rows of a prompt's embedding."""
        ...

    @property
    def text_dim(self) -> int:
        """Width of a prompt's embedding."""
        ...


class Memory(Protocol):
    """What the blocks have seen before."""

    def append(self, layer: int, k_SLJK: Tensor, v_SLJK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Remember the new tokens; returns the keys and values that they may look at, their own too, and a mask."""
        ...


TextKeys = Sequence[tuple[Tensor, ...]]
"""What each block reads of a prompt: tensors with a batch in front (1, or one for each row), or nothing."""


class Tables(Protocol):
    """What a network knows in advance about one latent size: every whole timestep, every place."""

    def at(self, t_S: Tensor, positions_SF: Tensor) -> Any:
        """What the blocks and the head need to know of a forward, looked up on the device.

        Args:
            t_S: int64, each row's timestep, 0..1000.
            positions_SF: int64, the frames' numbers on the time axis.
        """
        ...


@dataclass(frozen=True, slots=True)
class LinearPlace:
    """A large linear layer that may be replaced by one that computes the same otherwise.

    Attributes:
        holder, name: the attribute that holds it.
        views: attributes of the holder whose weights are views of this layer's; they go when it is replaced.
    """

    holder: nn.Module
    name: str
    views: tuple[str, ...] = ()

    @property
    def layer(self) -> nn.Linear:
        """What is there: it has `weight` [O, I] and `bias` [O]."""
        found: nn.Linear = getattr(self.holder, self.name)
        return found

    def replace(self, layer: nn.Module) -> None:
        """Put another layer there, and give up what was."""
        setattr(self.holder, self.name, layer)
        for view in self.views:
            delattr(self.holder, view)


class StreamingNetwork(Protocol):
    """A causal network that is played frame by frame.

    Attributes:
        blocks: those that are held here; all of them, or a rank's share.
    """

    blocks: nn.ModuleList

    def to(self, device: torch.device) -> Self:
        """Move it, weights and all, as `nn.Module.to`."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Its arithmetic."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    @property
    def text_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes, without the batch, of what one block reads of a prompt at full length."""
        ...

    def fuse(self) -> None:
        """Arrange it for inference; may be called again."""
        ...

    def tables(self, height: int, width: int) -> Tables:
        """What can be known in advance about latents of h = `height` and w = `width`."""
        ...

    def embed(self, x_SCFhw: Tensor) -> Tensor:
        """Noisy latents to tokens [S, L, D]."""
        ...

    def run_block(
        self,
        layer: int,
        x_SLD: Tensor,
        context: Any,
        text: tuple[Tensor, ...],
        memory: Memory,
        text_bias_X: Tensor | None = None,
    ) -> Tensor:
        """The tokens after block `layer` (counted among those held here); may overwrite `x_SLD`.

        Args:
            context: from `Tables.at`.
            text: what this block reads of the prompt; a batch of 1 serves every row.
            memory: where it keeps and finds what it has seen.
            text_bias_X: from `read_text`.
        """
        ...

    def predict(self, x_SLD: Tensor, context: Any, size: tuple[int, int, int]) -> Tensor:
        """Tokens to the prediction [S, C, F, h, w] of `size` F, h, w; what it means is `Schedule.prediction`."""
        ...

    def read_text(self, embedding_XE: Tensor, *, whole: bool) -> tuple[TextKeys, Tensor | None]:
        """What the blocks read of a prompt, and what is added to the logits of its tokens (None: nothing).

        Args:
            embedding_XE: rows after the prompt's last token are zero.
            whole: read all rows, so that every prompt gives the same shapes; else it may leave out what is alike.
        """
        ...

    def fold_text(self, keys: TextKeys) -> TextKeys:
        """What `read_text` gave, arranged so that forwards on this device have less to do; may be what came."""
        ...

    def new_block(self) -> nn.Module:
        """A block without weights (on the device `meta`), for one that another rank sends."""
        ...

    def linears(self) -> Iterable[LinearPlace]:
        """The large linear layers of the blocks, after `fuse`."""
        ...

    def compile(self, compiler: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Let `compiler` (`torch.compile`, for one) have the pieces of a block that it can take."""
        ...


def forward(
    network: StreamingNetwork,
    x_SCFhw: Tensor,
    context: Any,
    text: TextKeys,
    memory: Memory,
    text_bias_X: Tensor | None = None,
) -> Tensor:
    """The next F frames of S rows, each row with its own past: the prediction [S, C, F, h, w].

    Args:
        x_SCFhw: noisy latents.
        context, text, memory, text_bias_X: as of `StreamingNetwork.run_block`, `text` of every block.
    """
    x_SLD = network.embed(x_SCFhw)
    for layer, keys in enumerate(text):
        x_SLD = network.run_block(layer, x_SLD, context, keys, memory, text_bias_X)
    frames, height, width = x_SCFhw.shape[2:]
    return network.predict(x_SLD, context, (frames, height, width))


def keep_blocks(network: StreamingNetwork, start: int, end: int) -> None:
    """Give up all blocks but those from `start` to `end` (exclusive)."""
    network.blocks = nn.ModuleList(network.blocks[start:end])
