"""One rank's shard of the network: consecutive blocks, their KV cache, and the text keys and values of the prompts.

Rank 0 also embeds the latents, the last rank also computes the prediction. How messages are transported is the business
of `engine.distributed.link`.

Shape letters: S rows of the stream batch, L tokens, D width, C latent channels, F latent frames, h w latent size,
X tokens and E width of a text embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.distributed.link import Link
from engine.distributed.message import Message
from engine.distributed.split import Split, exchange_order
from engine.network.protocol import StreamingNetwork, Tables
from engine.runtime.metrics import StageTimers
from engine.stream.kv_cache import KVCache, NewFrames
from engine.stream.state import empty_text


def to_device(numbers: Sequence[int] | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Integers as an int64 tensor on the device; the host does not wait for the device."""
    held = torch.tensor(numbers, dtype=torch.int64, pin_memory=device.type == "cuda")
    return held.to(device, non_blocking=True)


class BlockShard:
    """Runs a rank's blocks.

    Args:
        network: the network with this rank's blocks only.
        cache: the KV cache of these blocks.
        tables: the network's tables for the picture's size.
        versions: how many prompts the chunks in flight can use at the same time (`chunk_plan.text_versions`).
    """

    def __init__(self, network: StreamingNetwork, cache: KVCache, tables: Tables, versions: int) -> None:
        self.network, self.cache, self.tables, self.versions = network, cache, tables, versions
        self.texts = empty_text(network, versions)
        self._embeddings: dict[int, Tensor] = {}
        self.timers = StageTimers(network.device)
        self._runs = 0

    @torch.inference_mode()
    def read(self, version: int, embedding_XE: Tensor) -> None:
        """Compute these blocks' text keys and values of a prompt [X, E] and store them under this version."""
        self._embeddings[version] = embedding_XE
        self._read(version, range(len(self.texts)))

    @torch.inference_mode()
    def read_again(self, layers: Sequence[int]) -> None:
        """Compute the keys and values of all prompts again for these blocks, whose weights have changed."""
        for version in self._embeddings:
            self._read(version, layers)

    def _read(self, version: int, layers: Sequence[int]) -> None:
        keys, _ = self.network.read_text(self._embeddings[version], whole=True, layers=layers)
        for layer, new in zip(layers, keys, strict=True):
            for versions, part in zip(self.texts[layer], new, strict=True):
                versions[version].copy_(part[0])

    @torch.inference_mode()
    def run(self, message: Message, x_SLD: Tensor, t_S: Tensor, end: tuple[int, int, int] | None = None) -> Tensor:
        """Run the rows' tokens through this rank's blocks.

        Args:
            message: the FORWARD message that describes the rows.
            x_SLD: their tokens.
            t_S: their timesteps.
            end: (F, h, w) on the last rank; None on the others.

        Returns:
            Tokens [S, L, D]; on the last rank the network's prediction [S, C, F, h, w].
        """
        self._runs += 1
        with self.timers.stage("dit"):
            return self._run(message, x_SLD, t_S, end)

    def _run(self, message: Message, x_SLD: Tensor, t_S: Tensor, end: tuple[int, int, int] | None) -> Tensor:
        device, frames = x_SLD.device, message.frames
        if message.copy is not None:
            self.cache.copy_row(*message.copy)
        rows = to_device([[r.number, r.position, r.anchor] for r in message.rows], device)
        cache = self.cache.from_row(message.first)
        cache.begin(
            NewFrames(rows[:, 0], rows[:, 2] > 0, message.visible, even=message.even, again=message.again), frames
        )
        context = self.tables.at(t_S, rows[:, 1:2] + torch.arange(frames, device=device))
        versions = [r.text for r in message.rows]
        chosen = slice(versions[0], versions[0] + 1) if len(set(versions)) == 1 else to_device(versions, device)
        for layer, texts in enumerate(self.texts):
            text = tuple(part[chosen] for part in texts)
            x_SLD = self.network.run_block(layer, x_SLD, context, text, cache)
        return x_SLD if end is None else self.network.predict(x_SLD, context, end)

    def seconds(self) -> float:
        """Mean time of this rank's blocks per forward since the last call of this method, in s."""
        runs, self._runs = self._runs, 0
        return self.timers.read()["dit"] / 1e3 / max(runs, 1)

    @torch.no_grad()
    def resplit(self, link: Link, old: Split, new: Split) -> None:
        """Exchange blocks, with their weights, KV caches and text keys, so that each rank has its new shard.

        Every rank calls it after the same message, with no other message in transit. The stream's history is kept.
        Blocks move one tensor at a time, in one order for all ranks, so that a rank needs memory only for what it has
        received, and for a copy of one tensor.
        """
        start = old[link.rank][0]
        held = {start + i: self._held(i) for i in range(len(self.network.blocks))}
        layout = held[start].tensors()
        for move in exchange_order(old, new):
            for number in range(move.start, move.end):
                if move.source == link.rank:
                    link.give(held.pop(number).tensors(), move.target)
                elif move.target == link.rank:
                    taken = [torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in layout]
                    link.take(taken, move.source)
                    held[number] = self._block_of(taken)
                    del taken
        del layout
        shard = [held[number] for number in sorted(held)]
        self.network.blocks = nn.ModuleList(block.module for block in shard)
        self.network.fuse()
        self.texts = [block.texts for block in shard]
        self.cache.load_layers([block.cache for block in shard])

    def _held(self, index: int) -> _HeldBlock:
        return _HeldBlock(self.network.blocks[index], self.texts[index], self.cache.layer(index))

    def _block_of(self, tensors: list[Tensor]) -> _HeldBlock:
        """The block that has these tensors, in the order of `_HeldBlock.tensors`."""
        module = self.network.new_block()
        names = list(module.state_dict())
        module.load_state_dict(dict(zip(names, tensors[: len(names)], strict=True)), assign=True)
        end = len(names) + len(self.network.text_shapes)
        module.eval().requires_grad_(False)
        return _HeldBlock(module, tuple(tensors[len(names) : end]), tensors[end:])


@dataclass(slots=True)
class _HeldBlock:
    """A block, its text keys and values, and its layer of the KV cache."""

    module: nn.Module
    texts: tuple[Tensor, ...]
    cache: list[Tensor]

    def tensors(self) -> list[Tensor]:
        return [*self.module.state_dict().values(), *self.texts, *self.cache]
