"""LoRA files: reads their tensors and what they say about themselves, and finds the models that they fit.

Two kinds of files are read: safetensors, whose header may hold a title, trigger words and alpha, and PyTorch pickles.
A file `adapter_config.json` of the library peft in the same folder is read too.

A file is read into memory as a whole, not mapped: somebody may replace it, or the disk may go, while the show runs. If
the file were mapped, the process would then be killed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import CheckpointError, ModelError
from engine.models.spec import ModelSpec
from engine.models.wan21 import checkpoint
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape
from engine.network.lora import updates
from engine.network.lora.scale import Scales, scales_of
from engine.network.lora.updates import Lora

MAX_BYTES = 8 * 2**30
"""Larger files are refused: the largest LoRAs of a 14B network (rank 256, fp32) have 5 GB."""

MAX_TRIGGERS = 3
"""Number of tags that are named as trigger words if a file lists only what its pictures were tagged with."""


@dataclass(frozen=True, slots=True, eq=False)
class LoraFile:
    """A LoRA file that has been read.

    Attributes:
        path: where it is.
        tensors: its tensors, by their keys.
        scales: what it says about alpha beside its keys.
        title: its name for users; the name of the file if it has none.
        triggers: words that a prompt should have, as the file says; empty if it says none.
        base: the model that it says it was trained on; empty if it says none.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    scales: Scales
    title: str
    triggers: tuple[str, ...] = ()
    base: str = ""

    def fitted(self, base: Mapping[str, Tensor]) -> Lora:
        """The LoRA for a network with these parameters.

        Raises:
            CheckpointError: if it is not for this network.
        """
        return updates.read(self.tensors, base, str(self.path), scales=self.scales)


def read(path: Path) -> LoraFile:
    """Read a LoRA file.

    Raises:
        CheckpointError: if there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no LoRA file {path}.", "Name a .safetensors or .pt file.")
    contents = _contents(path)
    tensors = checkpoint.parsed(contents, path)
    metadata = _metadata(contents) if path.suffix == ".safetensors" else {}
    title = metadata.get("modelspec.title") or metadata.get("ss_output_name") or path.stem
    base = metadata.get("modelspec.architecture") or metadata.get("ss_base_model_version") or ""
    return LoraFile(path, tensors, scales_of(metadata, _adapter_config(path)), title, _triggers(metadata), base)


def _contents(path: Path) -> bytes:
    """The contents of the file, which did not change meanwhile.

    Raises:
        CheckpointError: if it cannot be read, is too large, or was changed or removed while it was read.
    """
    try:
        before = path.stat()
        if before.st_size > MAX_BYTES:
            raise CheckpointError(
                f"{path} has {before.st_size / 2**30:.1f} GiB, which is no LoRA.", "Choose a LoRA, not a whole model."
            )
        contents = path.read_bytes()
        after = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).", "Choose it again.") from None
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not same or len(contents) != after.st_size:
        raise CheckpointError(f"{path} was changed while it was read.", "Choose it again once it is complete.")
    return contents


def _metadata(contents: bytes) -> dict[str, str]:
    """The metadata in the header of a safetensors file: 8 bytes with the header's length, little-endian, and JSON.

    The library reads them from a file's path only.
    """
    length = int.from_bytes(contents[:8], "little")
    found = json.loads(contents[8 : 8 + length]).get("__metadata__") or {}
    return {str(name): str(text) for name, text in found.items()}


def _adapter_config(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((path.parent / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _triggers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The trigger words that the metadata name, or else the tags that most training pictures had."""
    if phrase := metadata.get("modelspec.trigger_phrase", "").strip():
        return (phrase,)
    try:
        by_folder = json.loads(metadata.get("ss_tag_frequency", ""))
        counts: dict[str, int] = {}
        for tags in by_folder.values():
            for tag, count in tags.items():
                counts[tag.strip()] = counts.get(tag.strip(), 0) + int(count)
    except (ValueError, AttributeError, TypeError):
        return ()
    return tuple(sorted(counts, key=lambda tag: -counts[tag])[:MAX_TRIGGERS])


def parameters_of(shape: DiTShape) -> dict[str, Tensor]:
    """The parameters of a network on the device `meta`, by name: shapes without values."""
    with torch.device("meta"):
        return dict(CausalDiT(shape).state_dict())


def fits(file: LoraFile, spec: ModelSpec) -> Lora:
    """The LoRA as it would be loaded into a model, checked by names and shapes alone.

    Raises:
        CheckpointError: if it is not for this model.
        ModelError: if the model takes no LoRA.
    """
    if not takes_lora(spec):
        raise ModelError(f"{spec.title} takes no LoRA.", "Choose another model (tidecast models list).")
    assert isinstance(spec.network, DiTShape)
    return file.fitted(parameters_of(spec.network))


def takes_lora(spec: ModelSpec) -> bool:
    """Whether a model can be given LoRAs."""
    return isinstance(spec.network, DiTShape)
