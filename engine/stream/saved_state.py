"""A stream on disk: every tensor and count that outlives a chunk, so that a run can go on where another one ended.

One safetensors file; what is no tensor is JSON in its metadata. Must not know models or what the tensors mean.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.chunker import Chunk
from engine.controls import Controls
from engine.errors import ModelError
from engine.frame import Frame

KEY = "tidecast"


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write the file whole or not at all."""
    part = path.with_name(path.name + ".part")
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(own, part, metadata={KEY: json.dumps(facts)})
    os.replace(part, path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file that `write` wrote.

    Raises:
        ModelError: if it is none.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[KEY])
            names = file.keys()
            # Copies, because views into the file are not aligned, and some products round by alignment.
            return {name: file.get_tensor(name).clone() for name in names}, facts
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} holds no saved stream: {error}.", "Name a file that `save` wrote.") from None


def fill(held: Iterable[tuple[str, Tensor]], saved: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into those of the same name, which stay where they are.

    Raises:
        ModelError: if one is missing or has another shape; nothing is copied then.
    """
    pairs = list(held)
    wrong = [n for n, tensor in pairs if n not in saved or saved[n].shape != tensor.shape]
    if wrong:
        raise ModelError(
            f"The saved stream does not fit this session: {', '.join(wrong[:5])}"
            f"{' and others' if len(wrong) > 5 else ''} differ.",
            "Open the same model with the same size, batch and cache.",
        )
    for name, tensor in pairs:
        tensor.copy_(saved[name])


def pack_frames(frames: Iterable[Frame]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Pixels [n, H, W, 3] and the rest of every frame."""
    kept = list(frames)
    pixels = np.stack([frame.pixels for frame in kept]) if kept else np.zeros((0, 0, 0, 3), np.uint8)
    facts = [
        {"pts_ns": f.pts_ns, "captured_ns": f.captured_ns, "seq": f.seq, "metadata": dict(f.metadata)} for f in kept
    ]
    return torch.from_numpy(pixels), facts


def unpack_frames(pixels_NHW3: Tensor, facts: Iterable[Mapping[str, Any]]) -> list[Frame]:
    """Frames from what `pack_frames` made of them."""
    return [Frame(pixels, **fact) for pixels, fact in zip(pixels_NHW3.numpy(), facts, strict=True)]


def pack_chunk(chunk: Chunk) -> tuple[Tensor, dict[str, Any]]:
    """Pixels of a chunk's frames and the rest of it."""
    pixels, frames = pack_frames(chunk.frames)
    return pixels, {"frames": frames, "controls": dataclasses.asdict(chunk.controls)}


def unpack_chunk(pixels_NHW3: Tensor, facts: Mapping[str, Any]) -> Chunk:
    """A chunk from what `pack_chunk` made of it."""
    return Chunk(tuple(unpack_frames(pixels_NHW3, facts["frames"])), Controls(**facts["controls"]))
