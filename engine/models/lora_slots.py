"""The LoRAs of a session: which file is in which slot, read on a thread of its own, so that no frame waits for a disk.

The one thread is started with the first file that is chosen while the stream runs, and ends with the session.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config import LoraConfig
from engine.controls import LORA_SLOTS
from engine.errors import ModelError, TidecastError
from engine.models import lora_file
from engine.models.lora_file import LoraFile
from engine.network.lora.live import LoraTarget
from engine.network.lora.updates import Lora
from engine.runtime.gpu_memory import is_lack_of_memory

log = logging.getLogger(__name__)

MAX_CHARACTERS = 60
"""Most characters of a name, and of one of the trigger words."""

_PLAIN = str.maketrans({";": ",", "(": "[", ")": "]"})

SHARE = 0.025
"""Share of a chunk's time that a move of the faders may take: all of it, with what has to be computed again."""

RECENT = 8
"""The chunk's time is that of the fastest of so many chunks, so that a busy moment gives no larger share."""


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

    Raises:
        ModelError: if one of them cannot be read, or is not for this network.
    """

    def __init__(self, configured: Sequence[LoraConfig], target: LoraTarget | None, refusal: str) -> None:
        self._configured, self._target, self._refusal = tuple(configured), target, refusal
        self._slots = [_Slot() for _ in range(LORA_SLOTS)]
        self._executor: ThreadPoolExecutor | None = None
        self._begun = False
        self._stages: Mapping[str, float] = {}
        self._times_s: deque[float] = deque(maxlen=RECENT)
        self._troubles: list[str] = []
        if configured and target is None:
            raise ModelError(refusal, "Leave out engine.loras.")
        for number, (slot, wanted) in enumerate(zip(self._slots, configured, strict=False)):
            slot.file, slot.name = wanted.file, wanted.name
            assert target is not None
            self._loaded(number, *_read(wanted.file, target))

    @property
    def told(self) -> str:
        """The loaded LoRAs for the user: slot, name and trigger words of each."""
        return "; ".join(f"{number} {slot.told}" for number, slot in enumerate(self._slots, 1) if slot.told)

    def take_trouble(self) -> str:
        """The oldest of what went wrong and was not told yet, for the user; empty if nothing is."""
        return self._troubles.pop(0) if self._troubles else ""

    def follow(self, files: Sequence[str], strengths: Sequence[float], stages: Mapping[str, float]) -> None:
        """Before a chunk: note which files are wanted, load what has been read, and move the weights.

        Args:
            files: the wanted file of each slot; empty for the configured one.
            strengths: the strength of each slot.
            stages: ms of each stage of the newest chunk that is finished; empty before there is one. Before the first
                chunk, the strengths are reached at once.
        """
        if stages and stages is not self._stages:
            self._stages = stages
            self._times_s.append(sum(stages.values()) / 1e3)
        for number, (slot, file) in enumerate(zip(self._slots, files, strict=True)):
            configured = self._configured[number] if number < len(self._configured) else None
            wanted = file or (configured.file if configured else "")
            if wanted != slot.file:
                slot.file, slot.name = wanted, configured.name if configured and wanted == configured.file else ""
                self._change(number, slot)
            if slot.reading is not None and slot.reading.done():
                self._finish(number, slot, slot.reading)
        if self._target is not None and (self._begun or any(slot.told for slot in self._slots)):
            budget_s = SHARE * min(self._times_s, default=0.0) if self._begun else float("inf")
            self._blend(self._target, strengths, budget_s)
        self._begun = True

    def move_to(self, target: LoraTarget) -> None:
        """The stream was made anew, without any LoRA: load the wanted files into its network."""
        if self._target is None:
            return  # refused from the start
        self._target, self._begun = target, False
        self._times_s.clear()  # those of other devices
        for number, slot in enumerate(self._slots):
            slot.told = ""
            if slot.file:
                self._change(number, slot)

    def _blend(self, target: LoraTarget, strengths: Sequence[float], budget_s: float) -> None:
        """Move the weights; if memory does not suffice, the LoRA that was loaded last is taken out."""
        try:
            target.blend(strengths, budget_s)
        except Exception as error:
            if not is_lack_of_memory(error):
                raise
            number = target.drop()
            if number is None:
                raise  # no LoRA is to blame
            log.exception("no memory to merge LoRA %d", number + 1)
            slot = self._slots[number]
            name, slot.told = slot.told, ""
            self._troubles.append(
                f"LoRA {number + 1} ({name}) was taken out: there is no memory to merge it. {_first_line(error)} "
                "The picture goes on without it. Choose a LoRA of lower rank, a smaller size, or one LoRA less."
            )

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
            self._target.load(number, None)
        else:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "loras")
            slot.reading = self._executor.submit(_read, slot.file, self._target)

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
        name = _word(slot.name or file.title)
        words = f" ({', '.join(map(_word, file.triggers))})" if file.triggers else ""
        told = f"{name}{words}{', ' + lora.note if lora.note else ''}"
        assert self._target is not None
        self._target.load(number, lora)
        slot.told = told


def _read(path: str, target: LoraTarget) -> tuple[LoraFile, Lora]:
    """Read a file, check it and copy it to the device; on the thread `loras` once the stream runs.

    Raises:
        ModelError: if it cannot be read or is not for this network.
    """
    file = lora_file.read(Path(path).expanduser())
    return replace(file, tensors={}), target.place(file.fitted(target.base))


def _word(text: str) -> str:
    """A name or trigger words from a file, so that `LoraSlots.told` can be taken apart again."""
    return " ".join(text.translate(_PLAIN).split())[:MAX_CHARACTERS]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
