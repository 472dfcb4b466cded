"""GPU memory of a configuration, computed from shapes and settings before anything is loaded.

Everything that a stream holds is proportional to a few sizes: parameters, pixels, tokens, rows of the stream batch. A
test runs the whole stream on torch's device `meta` and compares (tests/engine/rehearsal). No figure was ever compared
with a GPU.

Shape letters: D width of the network, S rows of the stream batch, F latent frames of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

from engine.planning.roofline import NetworkShape, cache_bytes, dit_parameters, tokens

GIB = 2**30

ELEMENT = 2
"""Bytes of a number in bfloat16 or float16, in which a network runs on a GPU."""

CONTEXT = 0.6 * GIB
"""Allowance for the CUDA context, the workspaces of libraries, and gaps between tensors: an estimate."""

TIMESTEPS = 1001
"""Rows of the table of time embeddings: timesteps 0 to 1000."""


SPARE_RANK = 32
"""As `engine.network.lora.branch.SPARE`."""


class _Footprint(Protocol):
    """`engine.models.spec.CodecFootprint`."""

    @property
    def weights(self) -> float: ...
    @property
    def encoder(self) -> float: ...
    @property
    def decoder(self) -> float: ...
    @property
    def windows(self) -> float: ...
    @property
    def window_frame(self) -> float: ...
    @property
    def encode(self) -> float: ...
    @property
    def decode(self) -> float: ...
    @property
    def together(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the memory of a model depends on; see `engine.models.spec.ModelSpec`.

    Attributes:
        network: the network's sizes.
        slots: latent frames in the KV cache.
        first, frames: latent frames of a stream's first chunk, and of every later one.
        stride: pixels per latent along each side.
        most_steps: denoising steps that the model knows.
        codecs: its autoencoders, by name.
        clean_pass: whether a chunk's clean pass may share a forward with the next chunk's first step.
    """

    network: NetworkShape
    slots: int
    first: int
    frames: int
    stride: int
    most_steps: int
    codecs: Mapping[str, _Footprint]
    clean_pass: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """The settings on which memory depends; see `engine.config.Config`.

    Attributes:
        width, height: pixels.
        vae: the autoencoder, a name in `Sizes.codecs`.
        max_steps: most denoising steps.
        batch: whether the stream batch is used.
        float8: whether the network's large weights are held in 8 bits.
        graphs: whether work is captured in CUDA graphs.
        gpus: number of GPUs that share the blocks evenly.
        text: bytes that the text encoder takes on the GPU while it runs.
        loras: whether LoRAs are loaded, which need the originals of the weights that they change.
        lora_files: bytes of their files.
    """

    width: int
    height: int
    vae: str
    max_steps: int = 4
    batch: bool = True
    float8: bool = False
    graphs: bool = True
    gpus: int = 1
    text: float = 0.0
    loras: bool = False
    lora_files: float = 0.0


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes on one GPU; if several share the network, on the first, which needs the most.

    Attributes:
        weights: parameters, and what is computed from them once.
        cache: keys and values of earlier frames.
        codec: weights, state and windows of the autoencoder.
        tables: time embeddings, the prompt's keys and values, latents.
        pool: memory of the captured work, which stays reserved.
        work: temporary tensors of work that is not captured, at their peak.
        text: the text encoder.
        lora: the LoRAs, and the originals of all weights in the blocks that they can change; see `_loras`.
        context: see `CONTEXT`.
    """

    weights: float
    cache: float
    codec: float
    tables: float
    pool: float
    work: float
    text: float
    lora: float = 0.0
    context: float = CONTEXT

    @property
    def total(self) -> float:
        """Bytes that the GPU must have free before anything is loaded."""
        return sum(getattr(self, part.name) for part in fields(self))

    @property
    def steady(self) -> float:
        """Bytes of living tensors between two chunks, with the pool."""
        return self.weights + self.cache + self.codec + self.tables + self.pool + self.lora

    @property
    def gib(self) -> float:
        """`total` in GiB."""
        return self.total / GIB

    def __str__(self) -> str:
        parts = ", ".join(
            f"{part.name} {getattr(self, part.name) / GIB:.1f}" for part in fields(self) if getattr(self, part.name)
        )
        return f"{self.gib:.1f} GiB ({parts})"


def need(sizes: Sizes, setting: Setting) -> Need:
    """The GPU memory of a configuration.

    Raises:
        KeyError: if the model has no such autoencoder.
    """
    shape, codec = sizes.network, sizes.codecs[setting.vae]
    pixels = setting.width * setting.height
    length = tokens(shape, setting.height, setting.width, sizes.stride)
    steps = min(setting.max_steps, sizes.most_steps)
    rows = steps if setting.batch else 1
    layers = -(-shape.layers // setting.gpus)

    outside = dit_parameters(shape, layers=0)
    block = (dit_parameters(shape) - outside) / shape.layers
    linears = 6 * shape.dim**2 + 2 * shape.dim * shape.ffn
    weights = ELEMENT * (outside + layers * block) - setting.float8 * layers * linears * (ELEMENT - 1)

    versions = 1 if setting.gpus == 1 else steps + setting.gpus
    text_keys = versions * layers * 2 * shape.text_len * shape.dim * ELEMENT
    times = TIMESTEPS * 7 * shape.dim * ELEMENT
    latents = 2 * rows * setting.gpus * shape.latent_channels * sizes.frames * pixels / sizes.stride**2 * 4
    tables = text_keys + times + latents + 3 * pixels * 4

    together = sizes.frames if codec.together else 1
    windows = codec.windows
    if codec.together:  # one set of buffers for each length of a chunk
        windows = sum(codec.windows + codec.window_frame * frames for frames in {sizes.first, sizes.frames})
    encode, decode = codec.encode * pixels * together, codec.decode * pixels * together
    opening = (sizes.first / sizes.frames) if codec.together else 1.0
    forward = _forward(shape, setting) * length
    together_rows = 2 if sizes.clean_pass else rows
    recurring = max(encode, decode, forward * together_rows * sizes.frames)
    once = max(encode * opening, decode * opening, forward * sizes.first, recurring)
    pool, work = 0.0, once
    if setting.graphs and setting.gpus == 1:
        pool = recurring
        proof = decode + max(encode, forward) - recurring  # a direct call beside the replay; its copies are on the host
        work = max(once, proof)
    return Need(
        weights=weights,
        cache=rows * layers / shape.layers * cache_bytes(shape, length, sizes.slots),
        codec=codec.weights + (codec.encoder + codec.decoder + windows) * pixels,
        tables=tables,
        pool=pool,
        work=work,
        text=setting.text,
        lora=_loras(shape, setting, layers) if setting.loras else 0.0,
    )


def _loras(shape: NetworkShape, setting: Setting, layers: int) -> float:
    """Bytes for LoRAs on faders: their files, and the originals of the weights that they are merged into.

    Beside 8-bit weights only the originals of the prompt's keys and values are kept, which have 16 bits. Instead the
    files' factors are held a second time, in the layers' own layout, in which three fused layers have three times the
    places, and with places for files that are chosen later.
    """
    if not setting.float8:
        return ELEMENT * layers * (8 * shape.dim**2 + 2 * shape.dim * shape.ffn) + setting.lora_files
    pairs = 18 * shape.dim + 2 * shape.ffn  # numbers of a block's pairs, for each rank: ten layers
    places = 20 * shape.dim + 2 * shape.ffn  # six layers, of which the fused one has 12 dim
    rank = setting.lora_files / (ELEMENT * shape.layers * pairs) + SPARE_RANK
    return setting.lora_files + ELEMENT * layers * (places * rank + 2 * shape.dim**2)


def _forward(shape: NetworkShape, setting: Setting) -> float:
    """Bytes of temporary tensors per token of a forward, at the peak: in RoPE (fp32) or in the feed-forward."""
    if setting.float8:
        return ELEMENT * (3.0 * shape.dim + 5.04 * shape.ffn)
    return ELEMENT * max(13.1 * shape.dim, 9.0 * shape.dim + shape.ffn)


def cheaper(sizes: Sizes, setting: Setting) -> Iterator[Setting]:
    """Settings that take less memory, those that change the picture least first."""
    options = [setting]
    if min(setting.max_steps, sizes.most_steps) > 2:
        options.append(replace(options[-1], max_steps=2))
    if "tiny" not in setting.vae:
        smaller = [name for name in ("light", "tiny") if name in sizes.codecs and name != setting.vae]
        options += [replace(options[-1], vae=name) for name in smaller]
    if setting.max_steps > 1:
        options.append(replace(options[-1], max_steps=1))
    if setting.width * setting.height > 512 * 288:
        options.append(replace(options[-1], width=512, height=288))
    yield from options[1:]


def suggestion(sizes: Sizes, setting: Setting, free: float) -> tuple[Setting, Need] | None:
    """The first of the `cheaper` settings that fits into `free` bytes; None if none does."""
    for option in cheaper(sizes, setting):
        needed = need(sizes, option)
        if needed.total <= free:
            return option, needed
    return None
