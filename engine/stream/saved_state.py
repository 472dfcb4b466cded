"""A stream on disk: every tensor and count that outlives a chunk, so that a run can go on where another one ended.

One safetensors file; what is no tensor is JSON in its metadata. Must not know models or what the tensors mean.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
from engine.stream.protocol import Saved

KEY = "tidecast"

VERSION = 2
"""Of the format; raised when a saved tensor or fact gets another name or meaning. A file of another one is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A session as it is on disk.

    Attributes:
        model: name of its row.
        stream: what outlives a chunk; tickets are its chunks.
        noise, seed: state of the seeded noise.
        waiting: frames that are in no chunk yet.
        prompts: tensors and facts of what is in force and on its way.
        counters: resets and anchors that were obeyed; None before the first chunk.
        chunks: chunks begun.
    """

    model: str
    stream: Saved
    noise: Mapping[str, Tensor]
    seed: int
    waiting: tuple[Frame, ...]
    prompts: tuple[dict[str, Tensor], dict[str, Any]]
    counters: tuple[int, int] | None
    chunks: int


def write_session(path: Path, session: Session) -> None:
    """Write a session to one file."""
    travel, prompts = session.prompts
    tensors = {
        **_named("stream", session.stream.tensors),
        **_named("noise", session.noise),
        **_named("travel", travel),
    }
    tensors["waiting"], waiting = pack_frames(session.waiting)
    flights = []
    for row, (fact, ticket) in enumerate(zip(session.stream.facts["flights"], session.stream.tickets, strict=True)):
        chunk = None
        if ticket is not None:
            tensors[f"flight.{row}"], chunk = pack_chunk(ticket)
        flights.append({**fact, "chunk": chunk})
    write(
        path,
        tensors,
        {
            **session.stream.facts,
            **prompts,
            "version": VERSION,
            "flights": flights,
            "model": session.model,
            "waiting": waiting,
            "counters": session.counters,
            "chunks": session.chunks,
            "seed": session.seed,
        },
    )


def read_session(path: Path) -> Session:
    """The session that `write_session` wrote.

    Raises:
        ModelError: if the file holds none, is damaged, or has another `VERSION`.
    """
    tensors, facts = read(path)
    if facts.get("version") != VERSION:
        raise ModelError(
            f"{path} is a stream of format {facts.get('version')}, which another version of Tidecast saved; "
            f"this one reads format {VERSION}.",
            "Begin the stream anew.",
        )
    try:
        tickets = [
            None if flight["chunk"] is None else unpack_chunk(tensors[f"flight.{row}"], flight["chunk"])
            for row, flight in enumerate(facts["flights"])
        ]
        return Session(
            model=facts["model"],
            stream=Saved(_unnamed("stream", tensors), facts, tickets),
            noise=_unnamed("noise", tensors),
            seed=facts["seed"],
            waiting=tuple(unpack_frames(tensors["waiting"], facts["waiting"])),
            prompts=(_unnamed("travel", tensors), facts),
            counters=tuple(facts["counters"]) if facts["counters"] else None,
            chunks=facts["chunks"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} is damaged, or another version of Tidecast saved it ({error}).", "Begin the stream anew."
        ) from None


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _unnamed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


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


def check(held: Iterable[tuple[str, Tensor]], saved: Mapping[str, Tensor]) -> None:
    """Compare the saved tensors' names and shapes with those held.

    Raises:
        ModelError: if one is missing or has another shape.
    """
    wrong = [n for n, tensor in held if n not in saved or saved[n].shape != tensor.shape]
    if wrong:
        raise ModelError(
            f"The saved stream does not fit this session: {', '.join(wrong[:5])}"
            f"{' and others' if len(wrong) > 5 else ''} differ.",
            "Open the same model with the same size, batch and cache.",
        )


def fill(held: Iterable[tuple[str, Tensor]], saved: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into those of the same name, which stay where they are.

    Raises:
        ModelError: as `check`; nothing is copied then.
    """
    pairs = list(held)
    check(pairs, saved)
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
