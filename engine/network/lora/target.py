"""One parameter that LoRAs change: its original, and what the loaded LoRAs add to it.

Shape letters: O outputs, I inputs, R sum of the ranks of all LoRAs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.network.lora.updates import Lora, Update, difference
from engine.runtime.quantise import Float8Linear, to_float8


class Target:
    """One parameter: its original, and what the loaded LoRAs add to it."""

    def __init__(self, name: str, live: Tensor) -> None:
        self.name, self.live = name, live
        self.base: Tensor | None = None
        self._down_RI = self._up_OR = torch.empty(0)
        self._slot_R: list[int] = []
        self._scale_R: list[float] = []
        self._whole: list[tuple[int, Update]] = []
        self._stale = True

    @property
    def bytes(self) -> int:
        """Bytes of the original."""
        return self.live.numel() * self.live.element_size()

    def renew(self) -> None:
        """The loaded LoRAs have changed."""
        self._stale = True

    def restore(self) -> None:
        """Write the original, without allocating memory, and forget the LoRAs until the next `build`."""
        if self.base is not None:
            self.live.copy_(self.base)
        self._down_RI = self._up_OR = torch.empty(0)
        self._slot_R, self._scale_R, self._whole = [], [], []
        self._stale = True

    def build(self, loras: Sequence[Lora | None], strengths: Sequence[float]) -> None:
        """Write the weight of these strengths. The original is kept from the first time that one is not 0."""
        if self._stale:
            self._gather(loras)
        whole = [(strengths[slot], update) for slot, update in self._whole if strengths[slot]]
        used = any(strengths[slot] for slot in self._slot_R)
        if not whole and not used:
            if self.base is not None:
                self.live.copy_(self.base)
            if not self._slot_R and not self._whole:
                self.base = None  # no LoRA that is loaded changes it
            return
        if self.base is None:
            self.base = self.live.detach().clone()
        s_R = [strengths[slot] * scale for slot, scale in zip(self._slot_R, self._scale_R, strict=True)]
        on_gpu = self.live.device.type == "cuda"
        factor_R = torch.tensor(s_R, pin_memory=on_gpu).to(self.live.device, non_blocking=True)
        if not whole:
            scaled_OR = (self._up_OR * factor_R).to(self.live.dtype)
            torch.addmm(matrix(self.base), scaled_OR, self._down_RI, out=matrix(self.live))
            return
        total = self.base.to(torch.float32, copy=True)
        if used:
            matrix(total).addmm_(self._up_OR.float() * factor_R, self._down_RI.float())
        for strength, update in whole:
            total.add_(difference(update, self.base), alpha=strength)
        self.live.copy_(total)

    def _gather(self, loras: Sequence[Lora | None]) -> None:
        """Put the factors of all LoRAs side by side, in the weight's type."""
        device, dtype = self.live.device, self.live.dtype
        downs, ups = [], []
        self._slot_R, self._scale_R, self._whole = [], [], []
        for slot, lora in enumerate(loras):
            update = lora.updates.get(self.name) if lora is not None else None
            if update is None:
                continue
            if update.whole:
                self._whole.append((slot, update.on(device)))
            if update.magnitude is None and update.down is not None and update.up is not None:
                downs.append(update.down.to(device, dtype))
                ups.append(update.up.to(device, dtype))
                self._slot_R += [slot] * update.down.shape[0]
                self._scale_R += [update.scale] * update.down.shape[0]
        if downs:
            self._down_RI, self._up_OR = torch.cat(downs), torch.cat(ups, dim=1)
        self._stale = False


class Requantised(Target):
    """Rows of a weight in 8 bits. What whole updates add is summed in fp32 and quantised anew, scales included.

    Narrow pairs stand beside the layer (`branch`) and are not merged. Every move of a fader rounds the weight anew.

    Args:
        name: the parameter's name.
        layer: the layer, with a scale for each row.
        rows: which of its rows.
        original: the weight in 16 bits, in host memory.
    """

    def __init__(self, name: str, layer: Float8Linear, rows: slice, original: Tensor) -> None:
        super().__init__(name, layer.get_buffer("weight8_OI")[rows])
        self._scale_1O = layer.get_buffer("scale_1O")[:, rows]
        self._original = original
        self._released: tuple[Tensor, Tensor] | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the original, which has to be read for every merge."""
        return self._original.nbytes

    def restore(self) -> None:
        """See `Target`; the released bits come from host memory."""
        if self._released is not None:
            self.live.copy_(self._released[0])
            self._scale_1O.copy_(self._released[1])
        super().restore()

    def build(self, loras: Sequence[Lora | None], strengths: Sequence[float]) -> None:
        """See `Target`."""
        if self._stale:
            self._gather(loras)
        whole = [(strengths[slot], update) for slot, update in self._whole if strengths[slot]]
        if self._released is None:
            if not whole:
                return
            self._released = self.live.to("cpu", copy=True), self._scale_1O.to("cpu", copy=True)
        if not whole:
            self.live.copy_(self._released[0])
            self._scale_1O.copy_(self._released[1])
            return
        original = self._original.to(self.live.device)
        total = original.to(torch.float32, copy=True)
        for strength, update in whole:
            total.add_(difference(update, original), alpha=strength)
        weight8_OI, scale_O1 = to_float8(total)
        self.live.copy_(weight8_OI)
        self._scale_1O.copy_(scale_O1.T)

    def _gather(self, loras: Sequence[Lora | None]) -> None:
        updates = ((slot, lora.updates.get(self.name)) for slot, lora in enumerate(loras) if lora is not None)
        device = self.live.device
        self._whole = [(slot, update.on(device)) for slot, update in updates if update is not None and update.whole]
        self._stale = False


def matrix(weight: Tensor) -> Tensor:
    """A view [O, I] of a weight; the kernel of a convolution is flattened."""
    return weight.view(weight.shape[0], -1)
