"""One parameter that LoRAs change: its original, and what the loaded LoRAs add to it.

A large parameter is written in parts, some of its rows each, so that a chunk waits only as long as it may. The parts
are always the same ones, so the bits do not depend on how many of them are written at a time.

Shape letters: O outputs, I inputs, R sum of the ranks of all LoRAs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from engine.network.lora.updates import Lora, Update, difference, input_lengths
from engine.runtime.quantise import Float8Linear, to_float8

PART_BYTES = 2**19
"""Bytes of a part in host memory: about half a millisecond of one core."""

GPU_PART_BYTES = 2**26
"""Bytes of a part on a GPU: 20 microseconds at 3.35 TB/s, below which the launches would take longer."""


RANK_WORK = 1 / 16
"""Work for each rank of the pairs, relative to reading or writing the weight; about right for a core."""

WHOLE_WORK = 4.0
"""Work for each whole update, likewise."""


class Target:
    """One parameter: its original, and what the loaded LoRAs add to it.

    Args:
        name: its name.
        live: where it is.

    Attributes:
        name, live: as given.
        parts: the rows of each part.
        slots: the slots whose LoRA changes it.
        base: the original, where it is kept (`kept`).
        kept: the parts whose original is kept.
    """

    def __init__(self, name: str, live: Tensor) -> None:
        self.name, self.live = name, live
        self.base: Tensor | None = None
        self.kept: set[int] = set()
        self.slots: tuple[int, ...] = ()
        self._effort = 2.0
        count = max(1, part_bytes(live.device) * len(live) // max(self.bytes, 1))
        self.parts = tuple(slice(first, min(first + count, len(live))) for first in range(0, len(live), count))
        self._built: list[tuple[float, ...] | None] = [None] * len(self.parts)
        self._slot_R: list[int] = []
        self._scale_R: list[float] = []
        self._whole: list[tuple[int, Update, Tensor | None]] = []
        self._factor: tuple[tuple[float, ...], Tensor] | None = None
        self._forget()

    @property
    def bytes(self) -> int:
        """Bytes of the original."""
        return self.live.numel() * self.live.element_size()

    def bytes_of(self, part: int) -> int:
        """Bytes of the original of one part."""
        rows = self.parts[part]
        return self.bytes * (rows.stop - rows.start) // len(self.live)

    def renew(self, loras: Sequence[Lora | None]) -> None:
        """The loaded LoRAs have changed: `build` has to write every part."""
        updates = {
            slot: lora.updates[self.name] for slot, lora in enumerate(loras) if lora and self.name in lora.updates
        }
        self.slots = tuple(updates)
        ranks = sum(update.down.shape[0] for update in updates.values() if update.down is not None)
        whole = sum(update.whole for update in updates.values())
        self._effort = 2 + RANK_WORK * ranks + WHOLE_WORK * whole
        self._built = [None] * len(self.parts)
        self._stale = True

    def due(self, part: int, strengths: Sequence[float]) -> bool:
        """Whether a part was not written with these strengths yet; only those of LoRAs that change it count."""
        return self._built[part] != tuple(strengths[slot] for slot in self.slots)

    def restore(self) -> bool:
        """Write the original, without allocating memory, and forget the LoRAs until the next `build`.

        Returns:
            Whether anything was written.
        """
        for part in self.kept:
            assert self.base is not None
            self.live[self.parts[part]].copy_(self.base[self.parts[part]])
        self._forget()
        self._built = [None] * len(self.parts)
        return bool(self.kept)

    def work(self, part: int, strengths: Sequence[float]) -> float:
        """How much `build` has to do for these strengths, in bytes that are read or written; 0 for nothing."""
        if any(strengths[slot] for slot in self.slots):
            return self._effort * self.bytes_of(part)
        return 2.0 * self.bytes_of(part) if self._kept(part) else 0.0

    def build(self, part: int, loras: Sequence[Lora | None], strengths: Sequence[float]) -> bool:
        """Write one part as these strengths make it. Its original is kept from the first time that one is not 0.

        Returns:
            Whether anything was written.
        """
        if self._stale:
            self._gather(loras)
        written = self._write(part, strengths)
        self._built[part] = tuple(strengths[slot] for slot in self.slots)
        return written

    def _write(self, part: int, strengths: Sequence[float]) -> bool:
        rows = self.parts[part]
        live = self.live[rows]
        whole = [(strengths[slot], update, lengths) for slot, update, lengths in self._whole if strengths[slot]]
        used = any(strengths[slot] for slot in self._slot_R)
        if not whole and not used:
            return self._release(part)
        base = self._keep(part)
        if not whole and self._factor_dtype is live.dtype:
            scaled_OR = (self._up_OR[rows] * self._factor_R(strengths)).to(live.dtype)
            torch.addmm(matrix(base), scaled_OR, self._down_RI, out=matrix(live))
            return True
        total = base.to(torch.float32, copy=True)
        if used:
            matrix(total).addmm_(self._up_OR[rows].float() * self._factor_R(strengths), self._down_RI.float())
        for strength, update, lengths_I in whole:
            total.add_(difference(update, base, rows, lengths_I), alpha=strength)
        live.copy_(total)
        return True

    def _kept(self, part: int) -> bool:
        """Whether the original of a part is kept, since something else was written."""
        return part in self.kept

    @property
    def _factor_dtype(self) -> torch.dtype:
        """Type of the factors. Most CPUs multiply matrices in 16 bits many times slower than in fp32."""
        return torch.float32 if self.live.device.type == "cpu" else self.live.dtype

    def _keep(self, part: int) -> Tensor:
        """The original of a part, which is kept from now on."""
        rows = self.parts[part]
        if self.base is None:
            self.base = torch.empty_like(self.live)
        if part not in self.kept:
            self.base[rows].copy_(self.live[rows])
            self.kept.add(part)
        return self.base[rows]

    def _release(self, part: int) -> bool:
        """Write the original of a part; if no loaded LoRA changes the parameter, do not keep it any longer."""
        if not self._kept(part):
            return False
        assert self.base is not None
        self.live[self.parts[part]].copy_(self.base[self.parts[part]])
        if not self._slot_R and not self._whole:
            self.kept.discard(part)
            self.base = self.base if self.kept else None
        return True

    def _factor_R(self, strengths: Sequence[float]) -> Tensor:
        """The strength of every rank, with its scale."""
        given = tuple(strengths)
        if self._factor is None or self._factor[0] != given:
            s_R = [given[slot] * scale for slot, scale in zip(self._slot_R, self._scale_R, strict=True)]
            on_gpu = self.live.device.type == "cuda"
            factor = torch.tensor(s_R, pin_memory=on_gpu).to(self.live.device, non_blocking=True)
            self._factor = given, factor
        return self._factor[1]

    def _forget(self) -> None:
        self._down_RI = self._up_OR = torch.empty(0)
        self._slot_R, self._scale_R, self._whole = [], [], []
        self._factor = None
        self._stale = True

    def _gather(self, loras: Sequence[Lora | None]) -> None:
        """Put the factors of all LoRAs side by side, in the type of the matmul."""
        device, dtype = self.live.device, self._factor_dtype
        downs, ups = [], []
        self._forget()
        for slot, lora in enumerate(loras):
            update = lora.updates.get(self.name) if lora is not None else None
            if update is None:
                continue
            if update.whole:
                self._whole.append((slot, *self._placed(update)))
            if update.magnitude is None and update.down is not None and update.up is not None:
                downs.append(update.down.to(device, dtype))
                ups.append(update.up.to(device, dtype))
                self._slot_R += [slot] * update.down.shape[0]
                self._scale_R += [update.scale] * update.down.shape[0]
        if downs:
            self._down_RI, self._up_OR = torch.cat(downs), torch.cat(ups, dim=1)
        self._stale = False

    def _placed(self, update: Update) -> tuple[Update, Tensor | None]:
        """A whole update on the weight's device, and the lengths of DoRA that need all rows of the original."""
        update = update.on(self.live.device)
        if update.magnitude is None or update.by_output:
            return update, None
        return update, input_lengths(update, self._originals())

    def _originals(self) -> Iterator[tuple[slice, Tensor]]:
        """The original, part by part."""
        for part, rows in enumerate(self.parts):
            whole = self.base if self.base is not None and part in self.kept else self.live
            yield rows, whole[rows]


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
        self._original = original
        super().__init__(name, layer.get_buffer("weight8_OI")[rows])
        self._scale_1O = layer.get_buffer("scale_1O")[:, rows]
        self._released: tuple[Tensor, Tensor] | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the original, which has to be read for every merge."""
        return self._original.nbytes

    def restore(self) -> bool:
        """See `Target`; the released bits come from host memory."""
        written = self._released is not None
        for part in range(len(self.parts)) if written else ():
            self._write_released(self.parts[part])
        super().restore()
        return written

    def _write(self, part: int, strengths: Sequence[float]) -> bool:
        rows = self.parts[part]
        whole = [(strengths[slot], update, lengths) for slot, update, lengths in self._whole if strengths[slot]]
        if self._released is None:
            if not whole:
                return False
            self._released = self.live.to("cpu", copy=True), self._scale_1O.to("cpu", copy=True)
        if not whole:
            self._write_released(rows)
            return True
        original = self._original[rows].to(self.live.device)
        total = original.to(torch.float32, copy=True)
        for strength, update, lengths_I in whole:
            total.add_(difference(update, original, rows, lengths_I), alpha=strength)
        weight8_OI, scale_O1 = to_float8(total)
        self.live[rows].copy_(weight8_OI)
        self._scale_1O[:, rows].copy_(scale_O1.T)
        return True

    def _kept(self, part: int) -> bool:
        return self._released is not None

    def _write_released(self, rows: slice) -> None:
        assert self._released is not None
        self.live[rows].copy_(self._released[0][rows])
        self._scale_1O[:, rows].copy_(self._released[1][:, rows])

    def _gather(self, loras: Sequence[Lora | None]) -> None:
        updates = ((slot, lora.updates.get(self.name)) for slot, lora in enumerate(loras) if lora is not None)
        self._whole = [(slot, *self._placed(update)) for slot, update in updates if update is not None and update.whole]
        self._stale = False

    def _originals(self) -> Iterator[tuple[slice, Tensor]]:
        for rows in self.parts:
            yield rows, self._original[rows].to(self.live.device)


def part_bytes(device: torch.device) -> int:
    """Most bytes of a part on a device."""
    return GPU_PART_BYTES if device.type == "cuda" else PART_BYTES


def matrix(weight: Tensor) -> Tensor:
    """A view [O, I] of a weight; the kernel of a convolution is flattened."""
    return weight.view(weight.shape[0], -1)
