"""LoRAs beside layers with 8-bit weights: y = layer(x) + B (s * (A x)), with A and B of all LoRAs side by side.

Merging into 8-bit weights would round them anew with every move of a fader, and the rounding may be seen. Beside the
layer a move is one small copy, at once and exact: the strengths of all layers are in one tensor at a fixed address,
which captured graphs read. The work is done in every forward, also at strength 0.

Whole differences (DoRA, LoKr, LoHa, diff) cannot stand beside a layer. They are merged into the 8-bit weights
(`target.Requantised`), from originals that are kept in host memory for the weights that they change.

Shape letters: I inputs, O outputs, R places for ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ModelError
from engine.network.lora.target import Requantised
from engine.network.lora.updates import Lora
from engine.network.protocol import StreamingNetwork
from engine.runtime.quantise import Float8Linear, Scaling

SPARE = 32
"""Places for ranks that are kept free for files that are chosen while the stream runs."""


class Branched(nn.Module):
    """A linear layer with LoRAs beside it. Its tensors are not part of the state dict.

    Args:
        layer: the layer.
        size: its outputs and inputs.
        factor_R: strengths, shared by all layers.
        parts: number of layers that it was fused from, such as 3 for queries, keys and values.
        dtype: type of A and B.
    """

    def __init__(
        self, layer: Float8Linear, size: tuple[int, int], factor_R: Tensor, parts: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.layer, self.parts = layer, parts
        outputs, inputs = size
        places = parts * len(factor_R)
        self.factor_R: Tensor
        self.down_RI: Tensor
        self.up_OR: Tensor
        self.register_buffer("factor_R", factor_R, persistent=False)
        device = factor_R.device
        self.register_buffer("down_RI", torch.zeros(places, inputs, device=device, dtype=dtype), persistent=False)
        self.register_buffer("up_OR", torch.zeros(outputs, places, device=device, dtype=dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        y: Tensor = self.layer(x)
        inner = functional.linear(x, self.down_RI)
        inner = (inner.unflatten(-1, (self.parts, -1)) * self.factor_R.to(x.dtype)).flatten(-2)
        return y + functional.linear(inner, self.up_OR)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where the LoRAs of one weight are: the layer, and which of its parts the weight is."""

    layer: Branched
    part: int
    shape: tuple[int, int]


class Branches:
    """The LoRAs beside the layers of a network whose large weights are in 8 bits.

    Args:
        network: the network after `engine.runtime.quantise.quantise`; its large layers are replaced.
        rank: R.
        originals: the weights in 16 bits, in host memory, that whole differences may change, by name.

    Attributes:
        factor_R: the strength of every place.
        shapes: the weights that have LoRAs beside them, by name, as tensors on the device `meta`.
        biases: biases of the 8-bit layers, by name, as views.
    """

    def __init__(self, network: StreamingNetwork, rank: int, originals: Mapping[str, Tensor] | None = None) -> None:
        self.rank, self._originals = rank, dict(originals or {})
        self.factor_R = torch.zeros(rank, device=network.device)
        self._places: dict[str, _Place] = {}
        self._starts: dict[int, tuple[int, int]] = {}
        self.shapes: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        assert isinstance(network, nn.Module)
        paths = {id(module): name for name, module in network.named_modules()}
        for place in list(network.linears()):
            path, names = paths[id(place.holder)], place.views or (place.name,)
            layer: Float8Linear = getattr(place.holder, place.name)
            bias_O = layer.get_buffer("bias_O")
            size = (len(bias_O), layer.get_buffer("weight8_OI").shape[1])
            branched = Branched(layer, size, self.factor_R, len(names), bias_O.dtype)
            setattr(place.holder, place.name, branched)
            outputs = size[0] // len(names)
            for part, name in enumerate(names):
                full = f"{path}.{name}"
                self._places[f"{full}.weight"] = _Place(branched, part, (outputs, size[1]))
                self.shapes[f"{full}.weight"] = torch.empty((outputs, size[1]), device="meta")
                self.biases[f"{full}.bias"] = bias_O[part * outputs : (part + 1) * outputs]

    def check(self, slot: int, loras: Sequence[Lora | None], lora: Lora | None) -> None:
        """Check that a LoRA can be put into a slot beside the others.

        Raises:
            ModelError: if it holds whole differences of weights whose originals were not kept, or that share one scale,
                or if there are too few places for its rank.
        """
        if lora is None:
            return
        whole = [name for name in self._places.keys() & lora.updates.keys() if lora.updates[name].whole]
        if any(name not in self._originals for name in whole):
            raise ModelError(
                f"{lora.source} holds whole differences (DoRA, LoKr, LoHa or diff), which need the weights in 16 bits.",
                "Name it under engine.loras, so that they are kept in host memory from the start, or choose "
                'weights_dtype = "auto", or a LoRA of low rank alone.',
            )
        if any(self._places[name].layer.layer.scaling is not Scaling.ROW for name in whole):
            raise ModelError(
                f"{lora.source} holds whole differences, but with this build of torch an 8-bit matrix has one scale.",
                'Choose weights_dtype = "auto", or a LoRA of low rank alone.',
            )
        others = sum(rank_of(other) for other in (*loras[:slot], *loras[slot + 1 :]) if other is not None)
        if others + rank_of(lora) > self.rank:
            raise ModelError(
                f"{lora.source} has rank {rank_of(lora)}, but beside 8-bit weights {self.rank - others} of "
                f"{self.rank} places are free.",
                "Name it under engine.loras, so that places for it are kept from the start.",
            )

    def requantised(self, name: str) -> Requantised | None:
        """How whole differences of a weight are merged; None if its original was not kept."""
        if name not in self._originals:
            return None
        place = self._places[name]
        rows = slice(place.part * place.shape[0], (place.part + 1) * place.shape[0])
        return Requantised(name, place.layer.layer, rows, self._originals[name])

    @torch.no_grad()
    def load(self, loras: Sequence[Lora | None]) -> None:
        """Put these LoRAs beside the layers, instead of those before."""
        start = 0
        self._starts = {}
        for slot, lora in enumerate(loras):
            if lora is not None:
                self._starts[slot] = (start, rank_of(lora))
                start += rank_of(lora)
        for layer in {id(place.layer): place.layer for place in self._places.values()}.values():
            layer.down_RI.zero_()
            layer.up_OR.zero_()
        for slot, (start, _) in self._starts.items():
            lora = loras[slot]
            assert lora is not None
            for name in self._places.keys() & lora.updates.keys():
                update, place = lora.updates[name], self._places[name]
                if update.down is None or update.up is None or update.magnitude is not None:
                    continue
                first, count = place.part * self.rank + start, update.down.shape[0]
                outputs = place.shape[0]
                rows = slice(place.part * outputs, (place.part + 1) * outputs)
                place.layer.down_RI[first : first + count].copy_(update.down)
                place.layer.up_OR[rows, first : first + count].copy_(update.up.float() * update.scale)

    def set(self, strengths: Sequence[float]) -> None:
        """Set the strength of each slot, in one copy."""
        wanted = torch.zeros(self.rank, pin_memory=self.factor_R.device.type == "cuda")
        for slot, (start, count) in self._starts.items():
            wanted[start : start + count] = strengths[slot]
        self.factor_R.copy_(wanted, non_blocking=True)


def rank_of(lora: Lora) -> int:
    """The places that a LoRA needs: the largest rank of its pairs that are not merged."""
    pairs = (update.down for update in lora.updates.values() if update.magnitude is None)
    return max((down.shape[0] for down in pairs if down is not None), default=0)


def places_for(loras: Iterable[Lora]) -> int:
    """The places for LoRAs and `SPARE` more."""
    return sum(map(rank_of, loras)) + SPARE
