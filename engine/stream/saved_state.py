"""Saves the state of a session to a file, so that another session can continue the stream.

The file is a safetensors file; values that are not tensors are stored as JSON in its metadata.
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

from engine.chunker import Chunk, chunk_of
from engine.controls import Controls
from engine.errors import ModelError
from engine.frame import Frame
from engine.stream.protocol import Saved

KEY = "tidecast"
"""Key of the JSON in the metadata."""

VERSION = 3
"""Version of the format, raised when a saved tensor or value changes name or meaning. Other versions are refused."""


Setting = str | int
"""The value of a setting."""


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """The state of a session in a file.

    Attributes:
        model: name of the model.
        settings: the settings on which the state depends, by name; see `compare`.
        stream: state of the stream; its tickets are chunks.
        noise, seed: state of the noise generator.
        waiting: frames that are not in a chunk yet.
        prompts: state of the prompts: tensors, and other values.
        counters: the controls' `resets` and `anchors` at the last chunk; None before the first chunk.
        chunks: number of chunks started.
    """

    model: str
    settings: Mapping[str, Setting]
    stream: Saved
    noise: Mapping[str, Tensor]
    seed: int
    waiting: tuple[Frame, ...]
    prompts: tuple[dict[str, Tensor], dict[str, Any]]
    counters: tuple[int, int] | None
    chunks: int


def write_session(path: Path, session: Session) -> None:
    """Write a session to a file."""
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
            tensors[f"flight.{row}"], chunk = pack_chunk(chunk_of(ticket))
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
            "settings": dict(session.settings),
            "waiting": waiting,
            "counters": session.counters,
            "chunks": session.chunks,
            "seed": session.seed,
        },
    )


def read_session(path: Path) -> Session:
    """The session that `write_session` wrote.

    Raises:
        ModelError: if the file is not a saved session, is damaged, or has another `VERSION`.
    """
    tensors, facts = read(path)
    if facts.get("version") != VERSION:
        raise ModelError(
            f"{path} is a stream of format {facts.get('version')}, which another version of Tidecast saved; "
            f"this one reads format {VERSION}.",
            "Start a new stream.",
        )
    try:
        tickets = [
            None if flight["chunk"] is None else unpack_chunk(tensors[f"flight.{row}"], flight["chunk"])
            for row, flight in enumerate(facts["flights"])
        ]
        return Session(
            model=facts["model"],
            settings=dict(facts["settings"]),
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
            f"{path} is damaged, or another version of Tidecast saved it ({error}).", "Start a new stream."
        ) from None


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _unnamed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts to a file. The file is replaced only when it is complete."""
    part = path.with_name(path.name + ".part")
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(own, part, metadata={KEY: json.dumps(facts)})
    os.replace(part, path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file that `write` wrote.

    Raises:
        ModelError: if it is not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[KEY])
            names = file.keys()
            # Copies: views into the file are not aligned, and the rounding of some matmuls depends on alignment.
            return {name: file.get_tensor(name).clone() for name in names}, facts
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not a saved stream: {error}.", "Choose a file that `save` wrote.") from None


def compare(held: Mapping[str, Setting], saved: Mapping[str, Setting]) -> None:
    """Check that every setting in `saved` has the same value in `held`.

    Raises:
        ModelError: if one has another value; the message names it and both values.
    """
    wrong = [
        f"{name} is {value} in the file and {held.get(name, 'not set')} here"
        for name, value in saved.items()
        if held.get(name) != value
    ]
    if wrong:
        raise ModelError(
            f"The saved stream does not fit this session: {'; '.join(wrong)}.",
            "Open the model with the settings of the saved stream, or start a new stream.",
        )


def check(held: Iterable[tuple[str, Tensor]], saved: Mapping[str, Tensor]) -> None:
    """Check that `saved` has every tensor of `held`, by name, with the same shape and type.

    Raises:
        ModelError: if one is missing or has another shape or type.
    """
    wrong = [
        name
        for name, tensor in held
        if name not in saved or saved[name].shape != tensor.shape or saved[name].dtype != tensor.dtype
    ]
    if wrong:
        raise ModelError(
            f"The saved stream does not fit this session: {', '.join(wrong[:5])}"
            f"{' and others' if len(wrong) > 5 else ''} differ.",
            "Open the model with the settings of the saved stream, or start a new stream.",
        )


def fill(held: Iterable[tuple[str, Tensor]], saved: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into the held tensors of the same name, which keep their addresses.

    Raises:
        ModelError: as `check`; then nothing is copied.
    """
    pairs = list(held)
    check(pairs, saved)
    for name, tensor in pairs:
        tensor.copy_(saved[name])


def pack_frames(frames: Iterable[Frame]) -> tuple[Tensor, list[dict[str, Any]]]:
    """The pixels of frames as one tensor [N, H, W, 3], and their other attributes."""
    kept = list(frames)
    pixels = np.stack([frame.pixels for frame in kept]) if kept else np.zeros((0, 0, 0, 3), np.uint8)
    facts = [
        {"pts_ns": f.pts_ns, "captured_ns": f.captured_ns, "seq": f.seq, "metadata": dict(f.metadata)} for f in kept
    ]
    return torch.from_numpy(pixels), facts


def unpack_frames(pixels_NHW3: Tensor, facts: Iterable[Mapping[str, Any]]) -> list[Frame]:
    """The frames that `pack_frames` packed."""
    return [Frame(pixels, **fact) for pixels, fact in zip(pixels_NHW3.numpy(), facts, strict=True)]


def pack_chunk(chunk: Chunk) -> tuple[Tensor, dict[str, Any]]:
    """The pixels of a chunk's frames, and its other attributes."""
    pixels, frames = pack_frames(chunk.frames)
    return pixels, {"frames": frames, "controls": dataclasses.asdict(chunk.controls), "prompt": chunk.prompt}


def unpack_chunk(pixels_NHW3: Tensor, facts: Mapping[str, Any]) -> Chunk:
    """The chunk that `pack_chunk` packed."""
    frames = tuple(unpack_frames(pixels_NHW3, facts["frames"]))
    return Chunk(frames, Controls(**facts["controls"]), facts["prompt"])
