"""Merges low-rank adapters (LoRA, arXiv 2106.09685) into a network's weights.

W = W0 + s1 B1 A1 + s2 B2 A2 + ..., summed in fp32 in this order and rounded once to the type of the base weights W0.
Files name their tensors in different ways. For each layout there is a *format*: a function that maps the file's names
to the network's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import CheckpointError, listing

REMEDY = "Check that the file belongs to the chosen model (tidecast models verify NAME)."


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """A low-rank update of one weight [O, I]: `scale` times the product of `up` [O, rank] and `down` [rank, I]."""

    down: Tensor
    up: Tensor
    scale: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter file that has been read.

    Attributes:
        tensors: the tensors, by the names in the file.
        source: name of the file for error messages.
        strength: factor of the updates; 1 is the strength of training.
    """

    tensors: Mapping[str, Tensor]
    source: str
    strength: float = 1.0


Format = Callable[[Mapping[str, Tensor]], Mapping[str, LowRank] | None]
"""Converts a file's tensors to updates, by the names of the network's weights.

Returns None for a file of another layout. Raises a ValueError with a message for the user if the file has this layout
but is broken.
"""


def peft(tensors: Mapping[str, Tensor]) -> Mapping[str, LowRank] | None:
    """The format of the library peft with alpha = rank: pairs `NAME.lora_A.weight` and `NAME.lora_B.weight`."""
    pairs = {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
    modules = sorted(name.removesuffix(".lora_A.weight") for name in pairs if name.endswith(".lora_A.weight"))
    if not modules:
        return None
    known = {f"{module}.lora_{side}.weight" for module in modules for side in "AB"}
    faults = [
        listing("unexpected", sorted(pairs.keys() - known)),
        listing("missing", sorted(known - pairs.keys())),
    ]
    if any(faults):
        raise ValueError("; ".join(fault for fault in faults if fault))
    return {
        f"{module}.weight": LowRank(pairs[f"{module}.lora_A.weight"], pairs[f"{module}.lora_B.weight"])
        for module in modules
    }


FORMATS: tuple[Format, ...] = (peft,)
"""The known formats, in the order in which they are tried."""


def merged(
    base: Mapping[str, Tensor], adapters: Sequence[Adapter], formats: Sequence[Format] | None = None
) -> dict[str, Tensor]:
    """A network's tensors with adapters merged; only changed tensors are copied.

    Args:
        base: the network's tensors, by name.
        adapters: the adapters, in the order in which they are added.
        formats: the formats to try; None for `FORMATS`.

    Raises:
        CheckpointError: if an adapter has no known format, is broken, or does not fit this network.
    """
    sums: dict[str, Tensor] = {}
    for adapter in adapters:
        for name, part in _read(adapter, base, FORMATS if formats is None else formats).items():
            weight = sums[name] if name in sums else base[name].float()
            try:
                sums[name] = torch.addmm(
                    weight, part.up.float(), part.down.float(), alpha=part.scale * adapter.strength
                )
            except RuntimeError:
                raise CheckpointError(
                    f"{adapter.source} does not fit this network: {name} is {list(weight.shape)}, "
                    f"the adapter {list(part.up.shape)} x {list(part.down.shape)}.",
                    REMEDY,
                ) from None
    return dict(base) | {name: total.to(base[name].dtype) for name, total in sums.items()}


def _read(adapter: Adapter, base: Mapping[str, Tensor], formats: Sequence[Format]) -> Mapping[str, LowRank]:
    for layout in formats:
        try:
            parts = layout(adapter.tensors)
        except ValueError as error:
            raise CheckpointError(f"{adapter.source} is not an adapter for this network: {error}.", REMEDY) from None
        if parts is None:
            continue
        foreign = listing(
            "for other networks", sorted(name.removesuffix(".weight") for name in parts.keys() - base.keys())
        )
        if foreign:
            raise CheckpointError(f"{adapter.source} is not an adapter for this network: {foreign}.", REMEDY)
        return parts
    names = listing("of no known layout", sorted(adapter.tensors)) or "it is empty"
    raise CheckpointError(f"{adapter.source} is not an adapter for this network: {names}.", REMEDY)
