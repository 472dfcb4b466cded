"""What a stream remembers between two chunks, and how a piece of its heavy work is named.

`StreamState` is every tensor that outlives a chunk, at a fixed address, so that work can be captured once and replayed;
`WorkKey` is everything about a piece of work that is not in a tensor. Knows the codec's memory by protocol.

Shape letters: S rows of the stream batch, C latent channels, F latent frames of a chunk, h w latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.models.spec import CodecState, ModelSpec
from engine.network.protocol import StreamingNetwork
from engine.stream.kv_cache import KVCache, Rule
from engine.stream.noise import NoiseController


@dataclass(frozen=True, slots=True)
class InFlight:
    """A chunk in flight.

    Attributes:
        ticket: whatever the caller wants back with the result; None for the empty chunks of a warm start.
        timesteps: its levels; the first is only known on the device where motion moves it.
        number: latent frames of the stream before it; decides cache slots, never wraps.
        position: its place on the time axis of the rotary positions; wraps.
        anchor: whether its frames replace the sinks.
    """

    ticket: Any
    timesteps: tuple[int, ...]
    number: int
    position: int
    anchor: bool


@dataclass(frozen=True, slots=True)
class WorkKey:
    """What a piece of work is apart from its tensors: two with equal keys do the same to other numbers.

    Attributes:
        stage: "encode", "forward" or "decode".
        frames: latent frames of each row; of "encode" pixel frames.
        steady: whether it is what every chunk of a running stream brings, once the cache is full.
        rows: rows of the stream batch.
        visible, even, again: as in `NewFrames`.
    """

    stage: str
    frames: int
    steady: bool
    rows: int = 1
    visible: int = 0
    even: bool = True
    again: bool = False


class Runner(Protocol):
    """Gets the heavy work done."""

    def __call__(self, key: WorkKey, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`work(*inputs)`, or the same by other means. The result belongs to the caller."""
        ...


def run_directly(key: WorkKey, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Just do it."""
    return work(*inputs)


@dataclass(slots=True, eq=False)
class StreamState:
    """Every tensor that outlives a chunk, at a fixed address, and the few counts that the host keeps.

    Attributes:
        cache: keys and values of the frames that were.
        x_SCFhw: noisy latents of the rows, as they enter the next forward.
        clean_SCFhw: what the last forward thought the rows' pictures are, row by row.
        text: per block what it reads of the prompt in force.
        controller: memory of the motion-aware noise.
        encoder, decoder: memory of the video autoencoder at both ends.
        flights: chunks in flight, newest first: flight r is in row r.
        number, position: of the next latent frame.
    """

    cache: KVCache
    x_SCFhw: Tensor
    clean_SCFhw: Tensor
    text: list[tuple[Tensor, ...]]
    controller: NoiseController
    encoder: CodecState
    decoder: CodecState
    flights: list[InFlight] = field(default_factory=list)
    number: int = 0
    position: int = 0

    def reset(self) -> None:
        """Make it equal to a new state (the prompt stays)."""
        for part in (self.cache, self.controller, self.encoder, self.decoder):
            part.reset()
        self.x_SCFhw.zero_()
        self.clean_SCFhw.zero_()
        self.flights = []
        self.number = self.position = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by name, for saving, resuming and counting bytes."""
        yield "x", self.x_SCFhw
        yield "clean", self.clean_SCFhw
        for layer, keys in enumerate(self.text):
            for part, tensor in enumerate(keys):
                yield f"text.{layer}.{part}", tensor
        for name in ("cache", "controller", "encoder", "decoder"):
            for key, tensor in getattr(self, name).tensors().items():
                yield f"{name}.{key}", tensor


def empty_text(network: StreamingNetwork, count: int) -> list[tuple[Tensor, ...]]:
    """Room for what the blocks read of so many prompts, at full length."""
    return [
        tuple(torch.zeros((count, *shape), device=network.device, dtype=network.dtype) for shape in network.text_shapes)
        for _ in network.blocks
    ]


def new_cache(
    spec: ModelSpec,
    rule: Rule,
    *,
    height: int,
    width: int,
    layers: int,
    rows: int,
    device: torch.device,
    dtype: torch.dtype,
) -> KVCache:
    """The empty cache of so many of a model's blocks, for a picture of `height` x `width` pixels."""
    shape = spec.network
    tokens = (height // spec.stride // shape.patch[1]) * (width // spec.stride // shape.patch[2])
    return KVCache(
        spec.cache,
        rule,
        block=spec.frames_per_block,
        layers=layers,
        rows=rows,
        tokens=tokens,
        heads=shape.heads,
        width=shape.head_dim,
        device=device,
        dtype=dtype,
    )
