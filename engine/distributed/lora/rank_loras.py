"""The LoRAs of one rank: it merges them into the weights of its own blocks.

Every rank holds every LoRA in host memory, as blocks may come to it from other ranks. Before blocks move, each weight
is its original again, to the bit, so that a block moves as it was loaded. Afterwards each rank merges its new blocks at
once.

A move of the faders is told once. Each rank then does its share of the work before each forward, until it is done.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from engine.controls import LORA_SLOTS
from engine.distributed.block_shard import BlockShard
from engine.distributed.lora.pieces import Arrival
from engine.distributed.message import Message, Op
from engine.models.spec import Schedule
from engine.network.lora.live import LiveLoras
from engine.network.lora.merge import Derived, LiveMerge
from engine.network.lora.stopwatch import stopwatch_for
from engine.network.lora.updates import Lora
from engine.stream.timesteps import network_timesteps

_BLOCK = re.compile(r"^blocks\.(\d+)\.")


class RankLoras:
    """Loads and merges the LoRAs of one rank.

    Args:
        shard: the rank's blocks.
        schedule: the model's schedule, for its timesteps.
        start: number of the rank's first block in the whole network.
    """

    def __init__(self, shard: BlockShard, schedule: Schedule, start: int) -> None:
        self._shard, self._schedule = shard, schedule
        self._loras: list[Lora | None] = [None] * LORA_SLOTS
        self._strengths: tuple[float, ...] = (0.0,) * LORA_SLOTS
        self._budget_s = 0.0
        self._arrival: Arrival | None = None
        self._live = self._made(start)

    def serve(self, message: Message) -> None:
        """Obey a message of rank 0: `Op.LORA`, `LORA_PIECE`, `LORA_GONE` or `BLEND`."""
        if message.op is Op.LORA:
            self._arrival = Arrival(message.text, message.parts[0])
        elif message.op is Op.LORA_PIECE and self._arrival is not None:
            lora = self._arrival.add(message.parts[0])
            if lora is not None:
                self.load(message.text, lora)
                self._arrival = None
        elif message.op is Op.LORA_GONE:
            self.load(message.text, None)
        elif message.op is Op.BLEND:
            *strengths, budget_s = message.parts[0].view(torch.float64).tolist()
            self.set(strengths, budget_s)

    def load(self, slot: int, lora: Lora | None) -> None:
        """Put a LoRA in host memory into a slot, or empty it; the weights follow in `blend`."""
        self._loras[slot] = lora
        self._live.load(slot, None if lora is None else self._own(lora))

    def drop(self) -> int | None:
        """See `engine.network.lora.live.LoraTarget`; on this rank alone."""
        slot = self._live.drop()
        if slot is not None:
            self._loras[slot] = None
        return slot

    def set(self, strengths: Sequence[float], budget_s: float) -> None:
        """Move the weights towards these strengths with the next calls of `advance`.

        Args:
            strengths: the strength of each slot.
            budget_s: seconds that each call may take. Without a limit the strengths are reached at once.
        """
        self._strengths, self._budget_s = tuple(strengths), budget_s
        if budget_s == float("inf"):
            self.advance()

    def advance(self) -> None:
        """Before a chunk: do what the budget allows."""
        self._live.blend(self._strengths, self._budget_s)

    @torch.inference_mode()
    def leave(self) -> None:
        """Before blocks move between ranks: make every weight its original, and what is computed from it."""
        self._live.merge.restore()
        self._live.merge.refresh()

    def arrive(self, start: int) -> None:
        """After blocks have moved: merge all LoRAs into this rank's blocks, of which the first has this number."""
        self._live = self._made(start)
        for slot, lora in enumerate(self._loras):
            if lora is not None:
                self._live.load(slot, self._own(lora))
        self._live.blend(self._strengths, float("inf"))

    def _made(self, start: int) -> LiveLoras:
        network = self._shard.network
        assert isinstance(network, nn.Module)
        parameters = {_numbered(name, start): tensor for name, tensor in network.named_parameters()}
        derived = Derived(
            layers=range(start, start + len(network.blocks)),
            read_text=lambda layer: self._shard.read_again([layer - start]),
            renew_time=lambda: network.renew_tables(self._shard.tables, network_timesteps(self._schedule)),
        )
        return LiveLoras(LiveMerge(parameters, derived, stopwatch_for(network.device)), network.device)

    def _own(self, lora: Lora) -> Lora:
        """The part of a LoRA that changes this rank's weights, on its device."""
        names = self._live.base.keys() & lora.updates.keys()
        return self._live.place(replace(lora, updates={name: lora.updates[name] for name in names}))


def _numbered(name: str, start: int) -> str:
    """A parameter's name in the whole network, from that in a shard whose first block has the number `start`."""
    return _BLOCK.sub(lambda found: f"blocks.{int(found[1]) + start}.", name)


def blend_message(strengths: Sequence[float], budget_s: float) -> Message:
    """The message by which every rank moves its weights to these strengths; see `RankLoras.set`."""
    values: Tensor = torch.tensor([*strengths, budget_s], dtype=torch.float64)
    return Message(Op.BLEND, parts=[values.view(torch.int64)])
