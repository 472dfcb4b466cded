"""The LoRAs of a session: which file is in which slot, read on a thread of its own, so that no frame waits for a disk.

The one thread is started with the first file that is chosen while the stream runs, and ends with the session.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from engine.config import LoraConfig
from engine.controls import LORA_SLOTS
from engine.errors import ModelError, TidecastError
from engine.models import lora_file
from engine.models.lora_file import LoraFile
from engine.network.lora.updates import Lora, Update

log = logging.getLogger(__name__)

SHARE = 0.03
"""Share of a chunk's duration that merging may take while strengths move."""


class LoraTarget(Protocol):
    """A stream whose network takes LoRAs."""

    @property
    def lora_base(self) -> Mapping[str, Tensor]:
        """The network's parameters without any LoRA, by name, to read a LoRA for."""
        ...

    def load_lora(self, slot: int, lora: Lora | None) -> None:
        """Put a LoRA into a slot, or empty it; the weights follow in `blend_loras`."""
        ...

    def blend_loras(self, strengths: Sequence[float], budget_s: float) -> None:
        """Move the weights towards these strengths, before the next chunk. The KV cache is kept.

        Args:
            strengths: the strength of each slot.
            budget_s: seconds of the device that this may take; some progress is made in any case.
        """
        ...


@dataclass(slots=True)
class _Slot:
    """One slot: the wanted file and what is loaded of it.

    Attributes:
        file: path of the wanted file; empty for none.
        name: the name that the user gave it.
        reading: the file that is being read.
        told: the loaded LoRA's name and trigger words, for the user; empty if none is loaded.
    """

    file: str = ""
    name: str = ""
    reading: Future[tuple[LoraFile, Lora]] | None = None
    told: str = ""


class LoraSlots:
    """The LoRAs of a session.

    Args:
        configured: the LoRAs that are loaded at the start, in the first slots.
        target: the stream; None if it takes no LoRAs.
        refusal: why it takes none, for the user.
        device: where the network is.

    Raises:
        ModelError: if one of them cannot be read, or is not for this network.
    """

    def __init__(
        self,
        configured: Sequence[LoraConfig],
        target: LoraTarget | None,
        refusal: str,
        device: torch.device | str = "cpu",
    ) -> None:
        self._configured, self._target, self._refusal = tuple(configured), target, refusal
        self._device = torch.device(device)
        self._slots = [_Slot() for _ in range(LORA_SLOTS)]
        self._executor: ThreadPoolExecutor | None = None
        self._begun = False
        self._troubles: list[str] = []
        if configured and target is None:
            raise ModelError(refusal, "Leave out engine.loras.")
        for number, (slot, wanted) in enumerate(zip(self._slots, configured, strict=False)):
            slot.file, slot.name = wanted.file, wanted.name
            assert target is not None
            self._loaded(number, *self._read(wanted.file, target.lora_base))

    @property
    def told(self) -> str:
        """The loaded LoRAs for the user: slot, name and trigger words of each."""
        return "; ".join(f"{number} {slot.told}" for number, slot in enumerate(self._slots, 1) if slot.told)

    def take_trouble(self) -> str:
        """What went wrong since the last call, for the user; empty if nothing did."""
        troubles, self._troubles = self._troubles, []
        return " ".join(troubles)

    def follow(self, files: Sequence[str], strengths: Sequence[float], seconds: float) -> None:
        """Before a chunk: note which files are wanted, load what has been read, and move the weights.

        Args:
            files: the wanted file of each slot; empty for the configured one.
            strengths: the strength of each slot.
            seconds: duration of a chunk. Before the first chunk, the strengths are reached at once.
        """
        for number, (slot, file) in enumerate(zip(self._slots, files, strict=True)):
            configured = self._configured[number] if number < len(self._configured) else None
            wanted = file or (configured.file if configured else "")
            if wanted != slot.file:
                slot.file, slot.name = wanted, configured.name if configured and wanted == configured.file else ""
                self._change(number, slot)
            if slot.reading is not None and slot.reading.done():
                self._finish(number, slot, slot.reading)
        if self._target is not None and (self._begun or any(slot.told for slot in self._slots)):
            self._target.blend_loras(strengths, SHARE * seconds if self._begun else float("inf"))
        self._begun = True

    def close(self) -> None:
        """End the thread; idempotent."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def _change(self, number: int, slot: _Slot) -> None:
        """Another file is wanted in a slot: empty it, or begin to read. Until it is read, the old one stays."""
        slot.reading = None
        if self._target is None:
            self._troubles += [self._refusal] if slot.file else []
        elif not slot.file:
            slot.told = ""
            self._target.load_lora(number, None)
        else:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "loras")
            slot.reading = self._executor.submit(self._read, slot.file, self._target.lora_base)

    def _finish(self, number: int, slot: _Slot, reading: Future[tuple[LoraFile, Lora]]) -> None:
        slot.reading = None
        try:
            self._loaded(number, *reading.result())
        except TidecastError as error:
            self._troubles.append(f"LoRA {number + 1}: {error}")
        except (
            Exception
        ) as error:  # no memory, a driver's error: the control keeps the file, so it would end each engine
            log.exception("LoRA %d cannot be loaded", number + 1)
            self._troubles.append(f"LoRA {number + 1} cannot be loaded: {type(error).__name__}: {error}")

    def _loaded(self, number: int, file: LoraFile, lora: Lora) -> None:
        slot = self._slots[number]
        name = slot.name or file.title
        words = f" ({', '.join(file.triggers)})" if file.triggers else ""
        told = f"{name}{words}{', ' + lora.note if lora.note else ''}"
        assert self._target is not None
        self._target.load_lora(number, lora)
        slot.told = told

    def _read(self, path: str, base: Mapping[str, Tensor]) -> tuple[LoraFile, Lora]:
        """Read a file, check it and copy it to the device; on the thread `loras` once the stream runs.

        Raises:
            ModelError: if it cannot be read or is not for this network.
        """
        file = lora_file.read(Path(path).expanduser())
        lora = file.fitted(base)
        updates = {name: _on(update, self._device) for name, update in lora.updates.items()}
        return replace(file, tensors={}), replace(lora, updates=updates)


def _on(update: Update, device: torch.device) -> Update:
    """The update on the device. Copied on a CPU too: the file is mapped, and is to be read now."""
    down, up, dense = (
        None if tensor is None else tensor.to(device, copy=True) for tensor in (update.down, update.up, update.dense)
    )
    return Update(down, up, update.scale, dense)
