"""What a model is: one frozen row of numbers and builders. The only place where 30, 12 or 128 is written.

A model is a causal network, a video autoencoder ("VAE") and a text encoder that fit together, the cache
and step list that it was distilled with, and where its weights come from. Everything else in the engine reads
these rows and holds no numbers of its own.

Shape letters: B batch, C channels, T pixel frames, F latent frames, H W pixels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.network.protocol import NetworkShape


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The rolling KV cache, counted in latent frames.

    `sinks` frames stay, the rest is a ring. `threshold` is the cosine below which an adaptive sink is given up,
    None for fixed sinks. When the next position would reach `wrap_at` it jumps back (RoPE stays inside the range
    that the model was trained on). `rule` is the model's own rule for the sinks, a name of
    `engine.stream.kv_cache.Rule`.
    """

    slots: int
    sinks: int
    threshold: float | None = None
    wrap_at: int = 50
    rule: str = "reference"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Flow-matching noise levels and the list of denoising steps (timesteps 0..1000, decreasing).

    `shift` is the timestep shift of the sigma table; `strength` is the setting of the strength control at which
    `steps` is exactly the list below; `prediction` is what the network's output means: "flow" (noise minus
    picture, as Wan) or "x0" (the picture itself). `fixed_noise` draws the noise once per seed instead of anew for
    every chunk.
    """

    steps: tuple[int, ...] = (700, 500, 400, 200)
    default_steps: int = 2
    shift: float = 8.0
    strength: float = 0.8
    prediction: str = "flow"
    fixed_noise: bool = False


CODECS = {"full": "vae", "light": "light_vae", "tiny": "tiny_vae", "light-tiny": "light_tiny_vae"}
"""Autoencoders by the name that `Config.vae` gives them, with the role of their file."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a model: role, path in its repository, hash, size.

    Roles are dit, adapter, text, tokenizer and those in `CODECS`; several files of one role are parts of one thing, but
    adapters, which are added to the network one after the other, each with its `strength`.
    An unknown hash is empty and an unknown size 0; `about_bytes` is then the size to expect.
    """

    role: str
    path: str
    sha256: str
    bytes: int
    repository: str = ""
    revision: str = ""
    about_bytes: int = 0
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One row of the model table.

    `family` selects the builders in `engine.models.registry`; `network` holds the network's sizes, in the family's own
    class. `frames_per_latent` pixel frames make one latent frame (the very first latent frame is made of one); `stride`
    is the autoencoder's spatial stride; `frames_per_block` latent frames are denoised together. `vae` and `text` are
    the family's own builder settings.
    """

    name: str
    family: str
    title: str
    network: NetworkShape
    cache: CacheShape
    schedule: Schedule
    vae: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
    frames_per_latent: int = 4
    first_latents: int = 2
    frames_per_block: int = 1
    stride: int = 8
    default_vae: str = "full"
    normalised_latents: bool = False
    files: tuple[WeightFile, ...] = ()
    licence: str = ""
    vram_gib: float = 0.0
    notes: str = ""

    @property
    def needs_gpu(self) -> bool:
        """Whether it is far too much for a processor without one."""
        return self.vram_gib > 1.0

    @property
    def first_frames(self) -> int:
        """Pixel frames of a stream's first chunk: 1 for the first latent frame, then `frames_per_latent` each."""
        return 1 + self.frames_per_latent * (self.first_latents - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """One prompt as the network reads it. Immutable.

    Attributes:
        text: the prompt.
        embedding: [text_len, text_dim]; rows after the prompt's last token are zero and are attended unmasked.
        unknown: words of the prompt that this model does not know (only models with a fixed vocabulary).
    """

    text: str
    embedding: Tensor
    unknown: tuple[str, ...] = ()


class TextEncoder(Protocol):
    """Turns a prompt into a `Conditioning`. May be slow; is called from one thread at a time."""

    def encode(self, text: str) -> Conditioning:
        """Encode one prompt (any length; cut at the model's text length, and said so in the log)."""
        ...


class CodecState(Protocol):
    """Memory of a streaming autoencoder at one end: tensors at fixed addresses, written in place.

    `started` (one number, on the host) is 0 until the first frame has passed.
    """

    started: Tensor

    def reset(self) -> None:
        """Make it equal to a new state."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a call, by name (for saving, resuming and accounting)."""
        ...


class Codec(Protocol):
    """A streaming video autoencoder ("VAE"). Streamed calls equal one call over the whole clip.

    Pixels are [B, 3, T, H, W] in [-1, 1]; latents [B, C, F, h, w] are what the network works on: the raw encoder
    mean on the way in, and whatever the network calls a clean latent on the way out (the decoder de-normalises
    where the model wants it). `state` is one that this codec made for the same end.
    """

    latent_channels: int
    stride: int
    frames_per_latent: int

    def encoder_state(self, batch: int, height: int, width: int) -> CodecState:
        """New memory for encoding pictures of this size."""
        ...

    def decoder_state(self, batch: int, height: int, width: int) -> CodecState:
        """New memory for decoding to pictures of this size."""
        ...

    def encode(self, video_BCTHW: Tensor, state: Any) -> Tensor:
        """Encode the next frames: 1 + 4n of them when the state is new, 4n later. Returns [B, C, F, h, w]."""
        ...

    def decode(self, latent_BCFhw: Tensor, state: Any) -> Tensor:
        """Decode the next latent frames. The first of a new state gives 1 frame, every later one 4."""
        ...


Device = torch.device | str
