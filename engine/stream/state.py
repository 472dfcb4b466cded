"""The state of a stream between two chunks, and the key under which its heavy work can be captured.

`StreamState` holds every tensor that is kept from chunk to chunk. They never move, so that work on them can be captured
once and replayed. The heavy work of a chunk is one encode, one or more forwards of the network and one decode. A
`WorkKey` describes such a piece of work, apart from the values in its tensors.

Shape letters: S rows of the stream batch, C latent channels, F latent frames of a chunk, h w latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from engine.models.spec import CacheShape, CodecState, ModelSpec
from engine.network.protocol import StreamingNetwork
from engine.stream.kv_cache import KVCache, Rule
from engine.stream.noise import NoiseController

Ticket: TypeAlias = object
"""What a stream's caller passes with a chunk and gets back with its result. A stream only carries it, so any type will
do; it is the caller who knows which."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A chunk in flight: started, with denoising steps left.

    Attributes:
        ticket: returned with the result; None for an empty chunk that only fills a row.
        timesteps: one per denoising step. Motion may lower the first one, which then is only known on the device.
        number: number of its first latent frame, counted from the start of the stream; selects cache slots.
        position: position of its first latent frame on the time axis of RoPE; wraps around (`wrap_position`).
        anchor: whether its frames replace the sink frames.
    """

    ticket: Ticket
    timesteps: tuple[int, ...]
    number: int
    position: int
    anchor: bool


@dataclass(frozen=True, slots=True)
class WorkKey:
    """Describes a piece of work: work with equal keys runs the same operations on tensors of the same shapes.

    Attributes:
        stage: "encode", "forward" or "decode".
        frames: latent frames of each row; for "encode", pixel frames.
        steady: whether the work recurs with every chunk once the cache is full, so that capturing it pays.
        rows: rows of the stream batch.
        visible, even, again: as in `NewFrames`.
        earlier: for a forward that is also the clean pass of the chunk before (`clean_pass`), the slots that this one
            sees; else 0.
    """

    stage: str
    frames: int
    steady: bool
    rows: int = 1
    visible: int = 0
    even: bool = True
    again: bool = False
    earlier: int = 0


class Runner(Protocol):
    """Runs the heavy work of a stream."""

    def __call__(self, key: WorkKey, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """The result of `work(*inputs)`, by calling it or by replaying captured work. The caller owns the result."""
        ...


def run_directly(key: WorkKey, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The `Runner` that calls the work."""
    return work(*inputs)


@dataclass(slots=True, eq=False)
class StreamState:
    """Every tensor that is kept from chunk to chunk, at a fixed address, and a few numbers on the host.

    Attributes:
        cache: keys and values of earlier frames.
        x_SCFhw: noisy latents of the rows: the input of the next forward.
        clean_SCFhw: clean latents of the rows that the last forward predicted.
        text: what each block attends to of the current prompt.
        controller: state of the motion-aware noise controller.
        encoder, decoder: state of the video autoencoder.
        flights: chunks in flight, newest first: entry r is in row r.
        number, position: those of the next latent frame, as in `InFlight`.
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
        """Make it equal to a new state; the prompt is kept."""
        for part in (self.cache, self.controller, self.encoder, self.decoder):
            part.reset()
        self.x_SCFhw.zero_()
        self.clean_SCFhw.zero_()
        self.flights = []
        self.number = self.position = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name, to save it, restore it or count its bytes."""
        yield "x", self.x_SCFhw
        yield "clean", self.clean_SCFhw
        for layer, keys in enumerate(self.text):
            for part, tensor in enumerate(keys):
                yield f"text.{layer}.{part}", tensor
        for name in ("cache", "controller", "encoder", "decoder"):
            for key, tensor in getattr(self, name).tensors().items():
                yield f"{name}.{key}", tensor


def wrap_position(position: int, cache: CacheShape, rule: Rule) -> int:
    """Keep a RoPE position within the range that the model was trained on.

    At `CacheShape.wrap_at` the position jumps back to that of the cache's last slot, or to 0 with adaptive sinks.
    """
    if position < cache.wrap_at:
        return position
    return 0 if rule is Rule.ADAPTIVE else cache.slots - 1


def empty_text(network: StreamingNetwork, count: int) -> list[tuple[Tensor, ...]]:
    """Zeroed tensors for what the blocks attend to of `count` prompts, at full length."""
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
    """An empty cache for `layers` of a model's blocks and frames of `height` x `width` pixels."""
    shape = spec.network
    tokens = (height // spec.stride // shape.patch[1]) * (width // spec.stride // shape.patch[2])
    return KVCache(
        spec.cache,
        rule,
        block=spec.frames_per_block,
        first=spec.first_latents,
        layers=layers,
        rows=rows,
        tokens=tokens,
        heads=shape.heads,
        width=shape.head_dim,
        device=device,
        dtype=dtype,
    )
