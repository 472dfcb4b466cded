"""The interface of a streaming network, as stream, quantiser, compiler and distribution use it.

Each family of models has a class that implements `StreamingNetwork`, such as `engine.network.dit.CausalDiT`. Code
outside a family uses nothing else of it. A network is an embedding, a list of blocks and a head. It is causal in time:
each block passes the keys and values of the new frames to a `Memory` (the KV cache), which returns all keys and values
that the new frames may attend to.

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
    """The sizes of a network that code outside its family needs. `ModelSpec.network` is one."""

    @property
    def layers(self) -> int:
        """Number of blocks."""
        ...

    @property
    def heads(self) -> int:
        """Heads of the keys and values in the memory."""
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
        """Size of a token's patch: latent frames, rows, columns."""
        ...

    @property
    def text_len(self) -> int:
        """Tokens of a prompt's embedding."""
        ...

    @property
    def text_dim(self) -> int:
        """Width of a prompt's embedding."""
        ...


class Memory(Protocol):
    """Keys and values of earlier frames for self-attention (a KV cache)."""

    def append(self, layer: int, k_SLJK: Tensor, v_SLJK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store the keys and values of a layer's new tokens.

        Returns:
            The keys and values to attend to, including the new ones, and a mask or None, as for `attend`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class InTurns:
    """A memory for each row of a forward, and the rows take turns: the keys and values of a row are stored and read
    before those of the next row are stored. So the rows may be successive chunks of one history.

    Only networks with `StreamingNetwork.takes_turns` are given one.

    Attributes:
        memories: the memory of each row, in the order of the turns.
    """

    memories: tuple[Memory, ...]

    def append(self, layer: int, k_SLJK: Tensor, v_SLJK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Not possible for all rows at once.

        Raises:
            TypeError: always.
        """
        raise TypeError("the rows take turns: append to each of the memories, and attend to it, before the next one")


TextKeys = Sequence[tuple[Tensor, ...]]
"""For each block, the tensors that it attends to for a prompt; may be empty. Their batch is 1 or the number of rows."""


class Tables(Protocol):
    """Tensors that a network computes in advance for one latent size, such as time embeddings and RoPE rotations."""

    def at(self, t_S: Tensor, positions_SF: Tensor) -> Any:
        """Look up, on the device, what blocks and head need in a forward (the network's context).

        Args:
            t_S: int64, the entry of each row's timestep in `timesteps_N`.
            positions_SF: int64, the frames' positions on the time axis.
        """
        ...


@dataclass(frozen=True, slots=True)
class LinearPlace:
    """The place of a large linear layer, which may be replaced by another implementation, such as a quantised one.

    Attributes:
        holder, name: the module and the name of its attribute that holds the layer.
        views: attributes of the holder whose weights are views of this layer's weights; deleted when it is replaced.
    """

    holder: nn.Module
    name: str
    views: tuple[str, ...] = ()

    @property
    def layer(self) -> nn.Linear:
        """The current layer, with `weight` [O, I] and `bias` [O]."""
        found: nn.Linear = getattr(self.holder, self.name)
        return found

    def replace(self, layer: nn.Module) -> None:
        """Replace the layer and delete its views."""
        setattr(self.holder, self.name, layer)
        for view in self.views:
            delattr(self.holder, view)


class StreamingNetwork(Protocol):
    """A causal network that runs the next frames of a stream in each forward.

    Attributes:
        blocks: the blocks in this process: all of them, or a rank's shard.
    """

    blocks: nn.ModuleList

    @property
    def takes_turns(self) -> bool:
        """Whether its blocks can read a memory of the kind `InTurns`."""
        ...

    def to(self, device: torch.device) -> Self:
        """Move the network to a device, as `nn.Module.to`."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type in which it computes."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of its weights."""
        ...

    @property
    def text_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes, without the batch, of the tensors that one block attends to for a prompt of full length."""
        ...

    def fuse(self) -> None:
        """Fuse layers for inference; idempotent."""
        ...

    @property
    def source_channels(self) -> int:
        """Channels of the input's latents that `embed` takes after the noisy ones; 0 for a network without."""
        ...

    def tables(self, height: int, width: int, timesteps_N: Tensor) -> Tables:
        """Compute the tables for latents of h = `height` and w = `width`.

        Args:
            height, width: size in latents.
            timesteps_N: the timesteps that are looked up, 0 to 1000, of any real or integer type.
        """
        ...

    def renew_tables(self, tables: Any, timesteps_N: Tensor) -> None:
        """Compute what depends on weights in `tables` again, in place, after the weights have changed."""
        ...

    def embed(self, x_SCFhw: Tensor) -> Tensor:
        """Embed noisy latents, and the source's if the network takes them, as tokens [S, L, D]."""
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
        """Run one block: tokens [S, L, D]. It may overwrite `x_SLD`.

        Args:
            layer: index in `blocks`.
            x_SLD: tokens from the previous block.
            context: from `Tables.at`.
            text: what this block attends to for the prompt; a batch of 1 serves every row.
            memory: the KV cache.
            text_bias_X: from `read_text`.
        """
        ...

    def predict(self, x_SLD: Tensor, context: Any, size: tuple[int, int, int]) -> Tensor:
        """Run the head: the prediction [S, C, F, h, w] of `size` (F, h, w). `Schedule.prediction` says what it is."""
        ...

    def read_text(
        self, embedding_XE: Tensor, *, whole: bool, layers: Sequence[int] | None = None
    ) -> tuple[TextKeys, Tensor | None]:
        """Compute what the blocks attend to for a prompt.

        Args:
            embedding_XE: the prompt's embedding; rows after its last token are zero.
            whole: use all rows, so that every prompt gives the same shapes. Else rows that are all alike may be
                represented by one.
            layers: indices of the blocks; None for all.

        Returns:
            The tensors of each of these blocks, and a bias for the logits of the prompt's tokens (None for no bias).
        """
        ...

    def fold_text(self, keys: TextKeys, layers: Sequence[int]) -> TextKeys:
        """Precompute from `keys` what saves work in every forward on this device; may return them unchanged.

        Args:
            keys: from `read_text`, for the blocks `layers`.
        """
        ...

    def new_block(self) -> nn.Module:
        """A block without weights (on the device `meta`), for a block that another rank sends."""
        ...

    def linears(self) -> Iterable[LinearPlace]:
        """The large linear layers of the blocks, after `fuse`."""
        ...

    def compile(self, compiler: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Compile those parts of the blocks that `compiler` (for example `torch.compile`) can handle."""
        ...


def forward(
    network: StreamingNetwork,
    x_SCFhw: Tensor,
    context: Any,
    text: TextKeys,
    memory: Memory,
    text_bias_X: Tensor | None = None,
) -> Tensor:
    """Run the network on the next F frames of S rows: the prediction [S, C, F, h, w].

    Args:
        network: the network, with all its blocks.
        x_SCFhw: noisy latents.
        context, memory, text_bias_X: as for `StreamingNetwork.run_block`.
        text: what each block attends to for the prompt.
    """
    x_SLD = network.embed(x_SCFhw)
    for layer, keys in enumerate(text):
        x_SLD = network.run_block(layer, x_SLD, context, keys, memory, text_bias_X)
    frames, height, width = x_SCFhw.shape[2:]
    return network.predict(x_SLD, context, (frames, height, width))


def keep_blocks(network: StreamingNetwork, start: int, end: int) -> None:
    """Drop all blocks but those from `start` to `end` (exclusive)."""
    network.blocks = nn.ModuleList(network.blocks[start:end])
