"""Where the LoRAs of a stream are loaded: a network in this process, or over several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from engine.network.lora.merge import LiveMerge
from engine.network.lora.updates import Lora


class LoraTarget(Protocol):
    """Where LoRAs are loaded: the network of a stream, in one process (`LiveLoras`) or several."""

    @property
    def base(self) -> Mapping[str, Tensor]:
        """The network's parameters by name, to read a LoRA for; only names and shapes count."""
        ...

    def place(self, lora: Lora) -> Lora:
        """The LoRA with every tensor where it is needed. May be called on another thread."""
        ...

    def load(self, slot: int, lora: Lora | None) -> None:
        """Put a LoRA that was read for `base` into a slot, or empty it; the weights follow in `blend`.

        Raises:
            ModelError: if it cannot be put beside 8-bit weights; then nothing changes.
        """
        ...

    def drop(self) -> int | None:
        """After memory did not suffice: take out the LoRA that was loaded last; returns its slot, None without any."""
        ...

    def blend(self, strengths: Sequence[float], budget_s: float) -> None:
        """Move the weights towards these strengths, before the next chunk. The KV cache is kept.

        Args:
            strengths: the strength of each slot.
            budget_s: seconds of the device that all of it may take, with what has to be computed again afterwards.
        """
        ...


class LiveLoras:
    """A `LoraTarget` whose network is in this process; see `LiveMerge`.

    Args:
        merge: the merge of the network's parameters, by their names in the whole network.
        device: where the network is.
    """

    def __init__(self, merge: LiveMerge, device: torch.device) -> None:
        self.merge, self._device = merge, device

    @property
    def base(self) -> Mapping[str, Tensor]:
        """See `LoraTarget`."""
        return self.merge.base

    def place(self, lora: Lora) -> Lora:
        """See `LoraTarget`: the LoRA on the network's device."""
        return replace(lora, updates={name: update.on(self._device) for name, update in lora.updates.items()})

    def load(self, slot: int, lora: Lora | None) -> None:
        """See `LoraTarget`."""
        self.merge.load(slot, lora)

    @torch.inference_mode()
    def drop(self) -> int | None:
        """See `LoraTarget`."""
        return self.merge.drop()

    @torch.inference_mode()
    def blend(self, strengths: Sequence[float], budget_s: float) -> None:
        """See `LoraTarget`."""
        self.merge.set(strengths)
        self.merge.advance(budget_s)
