"""One rank's shard of the network: consecutive blocks, their KV cache, and the text keys and values of the prompts.

Rank 0 also embeds the latents, the last rank also computes the prediction. How messages are transported is the business
of `engine.distributed.link`.

Shape letters: S rows of the stream batch, L tokens, D width, C latent channels, F latent frames, h w latent size,
X tokens and E width of a text embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.distributed.link import Link, Message, Op
from engine.distributed.split import Split, moves
from engine.network.protocol import StreamingNetwork, Tables
from engine.runtime.metrics import StageTimers
from engine.stream.kv_cache import KVCache, NewFrames
from engine.stream.state import empty_text


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
        self.timers = StageTimers(network.device)
        self._runs = 0

    @torch.inference_mode()
    def read(self, version: int, embedding_XE: Tensor) -> None:
        """Compute these blocks' text keys and values of a prompt [X, E] and store them under this version."""
        keys, _ = self.network.read_text(embedding_XE, whole=True)
        for stored, new in zip(self.texts, keys, strict=True):
            for versions, part in zip(stored, new, strict=True):
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
        rows = torch.tensor([[r.number, r.position, r.anchor] for r in message.rows], device=device)
        cache = self.cache.from_row(message.first)
        cache.begin(
            NewFrames(rows[:, 0], rows[:, 2] > 0, message.visible, even=message.even, again=message.again), frames
        )
        context = self.tables.at(t_S, rows[:, 1:2] + torch.arange(frames, device=device))
        versions = [r.text for r in message.rows]
        chosen = (
            slice(versions[0], versions[0] + 1) if len(set(versions)) == 1 else torch.tensor(versions, device=device)
        )
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
        """
        start = old[link.rank][0]
        held = {start + i: self._layer(i) for i in range(len(self.network.blocks))}
        exchange = [(move, number) for move in moves(old, new) for number in range(move.start, move.end)]
        for move, number in exchange:
            if move.source == link.rank:
                link.send(Message(Op.SPLIT, parts=held.pop(number)), move.target)
        for move, number in exchange:
            if move.target == link.rank:
                held[number] = link.receive(move.source).parts
        self._set_layers([held[number] for number in sorted(held)])

    def _layer(self, index: int) -> list[Tensor]:
        """All tensors of one block: its parameters as one vector, its text keys and values, its KV cache."""
        weights = torch.cat([tensor.flatten() for tensor in self.network.blocks[index].state_dict().values()])
        return [weights, *self.texts[index], *self.cache.layer(index)]

    def _set_layers(self, layers: list[list[Tensor]]) -> None:
        """Replace the rank's blocks by these, in order (each as `_layer` returns it)."""
        blocks, read = [], len(self.network.text_shapes)
        for weights, *_ in layers:
            block = self.network.new_block()
            shapes = {name: tensor.shape for name, tensor in block.state_dict().items()}
            parts = weights.split([shape.numel() for shape in shapes.values()])
            named = {name: part.view(shapes[name]).clone() for name, part in zip(shapes, parts, strict=True)}
            block.load_state_dict(named, assign=True)
            blocks.append(block.eval().requires_grad_(False))
        self.network.blocks = nn.ModuleList(blocks)
        self.network.fuse()
        self.texts = [tuple(part.clone() for part in layer[1 : 1 + read]) for layer in layers]
        self.cache.load_layers([layer[1 + read :] for layer in layers])
