"""The LoRAs of a network on several ranks, as rank 0 sees them: it reads each file and sends it to the others.

A LoRA is sent in pieces, a few with each chunk, so that no picture waits for it, and takes effect on all ranks when the
last piece has been sent. Strengths are sent when they change; each rank does its part of the work by itself. A chunk
passes all ranks, so each may take its share of the time that the move may take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from engine.distributed.lora.pieces import messages_of
from engine.distributed.lora.rank_loras import RankLoras, blend_message
from engine.distributed.message import Message, Op
from engine.models.lora_file import parameters_of
from engine.models.spec import ModelSpec
from engine.network.dit_shape import dit_shape
from engine.network.lora.updates import Lora

MESSAGES = 4
"""Messages of a LoRA that are sent with each chunk."""

TOLERANCE = 1.25
"""The time that a move may take is sent anew when it differs by more than this factor."""


class _Ring(Protocol):
    """What is needed of `engine.distributed.ring.Ring`."""

    world: int

    def tell(self, message: Message) -> None:
        """Send a message to all other ranks."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Sending:
    """A LoRA that is being sent."""

    slot: int
    lora: Lora
    messages: Iterator[Message]


class RingLoras:
    """A `LoraTarget` (see `engine.network.lora.live`) whose network is on several ranks.

    Args:
        ring: the connection to the other ranks.
        own: the LoRAs of this rank.
        spec: the model's row.

    Attributes:
        own: as given.
    """

    def __init__(self, ring: _Ring, own: RankLoras, spec: ModelSpec) -> None:
        self._ring, self.own, self._spec = ring, own, spec
        self._queue: deque[_Sending] = deque()
        self._strengths: tuple[float, ...] = ()
        self._budget_s = 0.0

    @cached_property
    def base(self) -> Mapping[str, Tensor]:
        """See `LoraTarget`: the whole network, on the device `meta`."""
        return parameters_of(dit_shape(self._spec.network))

    def place(self, lora: Lora) -> Lora:
        """See `LoraTarget`: the LoRA in host memory, from where every rank takes its part."""
        host = torch.device("cpu")
        return replace(lora, updates={name: update.on(host) for name, update in lora.updates.items()})

    def load(self, slot: int, lora: Lora | None) -> None:
        """See `LoraTarget`. What was there before stays until the LoRA has been sent."""
        self._queue = deque(sending for sending in self._queue if sending.slot != slot)
        if lora is None:
            self._loaded(slot, None)
            self._ring.tell(Message(Op.LORA_GONE, text=slot))
        else:
            self._queue.append(_Sending(slot, lora, messages_of(slot, lora)))

    def drop(self) -> int | None:
        """See `LoraTarget`; a rank other than this one ends if its memory does not suffice."""
        slot = self.own.drop()
        if slot is not None:
            self._ring.tell(Message(Op.LORA_GONE, text=slot))
        return slot

    def blend(self, strengths: Sequence[float], budget_s: float) -> None:
        """See `LoraTarget`. Without a limit of time everything is sent and merged at once."""
        self._send(None if budget_s == float("inf") else MESSAGES)
        share_s = budget_s / self._ring.world
        if tuple(strengths) != self._strengths or self._differs(share_s):
            self._strengths, self._budget_s = tuple(strengths), share_s
            self._ring.tell(blend_message(strengths, share_s))
        self.own.set(strengths, share_s)
        self.own.advance()

    def _differs(self, share_s: float) -> bool:
        """Whether the ranks have to be told another budget."""
        low, high = sorted((share_s, self._budget_s))
        return high > TOLERANCE * low

    def _send(self, most: int | None) -> None:
        sent = 0
        while self._queue and sent != most:
            sending = self._queue[0]
            message = next(sending.messages, None)
            if message is not None:
                self._ring.tell(message)
                sent += 1
                continue
            self._queue.popleft()
            self._loaded(sending.slot, sending.lora)

    def _loaded(self, slot: int, lora: Lora | None) -> None:
        self.own.load(slot, lora)
