"""One rank's share of the network: consecutive blocks, what they remember, and the texts that their rows read.

Rank 0 also embeds patches, the last rank also holds the head. Must not know how messages travel.

Shape letters: S rows of the stream batch, L tokens, D width, C latent channels, F latent frames, h w latent size,
T tokens of the text, E width of a text embedding, H heads, K width of a head, V versions of the text.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.distributed.link import Link, Message, Op
from engine.distributed.split import Split, moves
from engine.network.dit import Block, CausalDiT, Time
from engine.network.rope import Rope
from engine.runtime.metrics import StageTimers
from engine.stream.kv_cache import Arrival, KVCache


def share(dit: CausalDiT, start: int, end: int) -> CausalDiT:
    """Keep only the blocks from `start` to `end` (exclusive) of a network; the others are given up."""
    dit.blocks = nn.ModuleList(dit.blocks[start:end])
    return dit


class Part:
    """A rank's blocks at work.

    Args:
        dit: the network with this rank's blocks only.
        cache: the memory of these blocks.
        rope: the rotary turns of the picture's size.
        time_N: the network's view of every whole timestep.
        versions: how many texts can be in force for chunks in flight at the same time.
    """

    def __init__(self, dit: CausalDiT, cache: KVCache, rope: Rope, time_N: Time, versions: int) -> None:
        self.dit, self.cache, self.rope, self.time_N = dit, cache, rope, time_N
        weight = dit.patch_embedding.weight
        shape = dit.shape
        size = (versions, shape.text_len, shape.heads, shape.head_dim)
        self.texts = [
            (
                torch.zeros(size, device=weight.device, dtype=weight.dtype),
                torch.zeros(size, device=weight.device, dtype=weight.dtype),
            )
            for _ in dit.blocks
        ]
        self.timers = StageTimers(weight.device)
        self._runs = 0

    @torch.inference_mode()
    def read(self, version: int, embedding_LE: Tensor) -> None:
        """Make this prompt the text of that version, for these blocks."""
        keys = self.dit.text_keys(self.dit.embed_text(embedding_LE[None]))
        for (k_VTHK, v_VTHK), (k, v) in zip(self.texts, keys, strict=True):
            k_VTHK[version].copy_(k[0])
            v_VTHK[version].copy_(v[0])

    @torch.inference_mode()
    def run(self, message: Message, x_SLD: Tensor, t_S: Tensor) -> Tensor:
        """Take the rows' tokens through this rank's blocks: [S, L, D] to [S, L, D]."""
        self._runs += 1
        with self.timers.stage("dit"):
            return self._run(message, x_SLD, t_S)

    def _run(self, message: Message, x_SLD: Tensor, t_S: Tensor) -> Tensor:
        device, frames = x_SLD.device, message.frames
        if message.copy is not None:
            self.cache.copy_row(*message.copy)
        orders = torch.tensor([[r.number, r.position, r.anchor] for r in message.rows], device=device)
        cache = self.cache.from_row(message.first)
        cache.begin(
            Arrival(orders[:, 0], orders[:, 2] > 0, message.visible, even=message.even, again=message.again), frames
        )
        time = self.time(t_S, frames)
        turns = self.rope.at(orders[:, 1:2] + torch.arange(frames, device=device))
        versions = [r.text for r in message.rows]
        chosen = (
            slice(versions[0], versions[0] + 1) if len(set(versions)) == 1 else torch.tensor(versions, device=device)
        )
        for layer, (block, (k_VTHK, v_VTHK)) in enumerate(zip(self.dit.blocks, self.texts, strict=True)):
            x_SLD = block(x_SLD, time.e0_BF6D, turns, (k_VTHK[chosen], v_VTHK[chosen]), None, cache, layer)
        return x_SLD

    def time(self, t_S: Tensor, frames: int) -> Time:
        """What the network makes of one timestep per row."""
        return Time(
            self.time_N.e_BFD[0, t_S, None].expand(-1, frames, -1),
            self.time_N.e0_BF6D[0, t_S, None].expand(-1, frames, -1, -1),
        )

    @torch.inference_mode()
    def predict(self, x_SLD: Tensor, t_S: Tensor, size: tuple[int, int, int]) -> Tensor:
        """The last rank's end: tokens to the network's prediction [S, C, F, h, w] of `size` F, h, w."""
        return self.dit.unembed_patches(x_SLD, self.time(t_S, size[0]).e_BFD, size)

    def seconds(self) -> float:
        """Mean time of this rank's blocks per forward since the last reading, in s."""
        runs, self._runs = self._runs, 0
        return self.timers.read()["dit"] / 1e3 / max(runs, 1)

    @torch.no_grad()
    def resplit(self, link: Link, old: Split, new: Split) -> None:
        """Exchange blocks with the other ranks, weights and memory and all, so that every rank has its new share.

        Every rank calls it at the same place in the order of messages; none of the stream's history is lost.
        """
        start = old[link.rank][0]
        held = {start + i: self._layer(i) for i in range(len(self.dit.blocks))}
        exchange = [(move, number) for move in moves(old, new) for number in range(move.start, move.end)]
        for move, number in exchange:
            if move.source == link.rank:
                link.send(Message(Op.SPLIT, parts=held.pop(number)), move.target)
        for move, number in exchange:
            if move.target == link.rank:
                held[number] = link.receive(move.source).parts
        self._hold([held[number] for number in sorted(held)])

    def _layer(self, index: int) -> list[Tensor]:
        """Everything that belongs to one block: memory, texts, and its parameters as one vector."""
        weights = torch.cat([tensor.flatten() for tensor in self.dit.blocks[index].state_dict().values()])
        return [weights, *self.texts[index], *self.cache.layer(index)]

    def _hold(self, layers: list[list[Tensor]]) -> None:
        """Make these the rank's blocks, in order."""
        blocks = []
        for weights, *_ in layers:
            with torch.device("meta"):
                block = Block(self.dit.shape)
            shapes = {name: tensor.shape for name, tensor in block.state_dict().items()}
            parts = weights.split([shape.numel() for shape in shapes.values()])
            named = {name: part.view(shapes[name]).clone() for name, part in zip(shapes, parts, strict=True)}
            block.load_state_dict(named, assign=True)
            blocks.append(block.eval().requires_grad_(False))
        self.dit.blocks = nn.ModuleList(blocks)
        self.dit.fuse()
        self.texts = [(k.clone(), v.clone()) for _, k, v, *_ in layers]
        self.cache.hold([memory for _, _, _, *memory in layers])
