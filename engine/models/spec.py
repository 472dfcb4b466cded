"""The row of a model in the model table, and the interfaces of its codec and its text encoder.

A model is a causal network, a video autoencoder ("VAE") and a text encoder that fit together, the KV cache and the list
of denoising steps that it was distilled with, and the source of its weights. The rest of the engine reads all sizes
from these rows and has none of its own. Loads no torch.

Shape letters: B batch, C channels, T pixel frames, F latent frames, H W pixels, h w latent size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from engine.models.vocabulary import Vocabulary

if TYPE_CHECKING:  # the bridge reads the rows too, and loads no torch
    from torch import Tensor

    from engine.network.protocol import NetworkShape


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Size and rules of the rolling KV cache.

    Attributes:
        slots: latent frames that it holds.
        sinks: how many of them are sinks; the others form a ring.
        threshold: cosine similarity below which an adaptive sink is replaced; None for fixed sinks.
        wrap_at: RoPE position, in latent frames, at which the position jumps back instead, so that it stays within the
            range that the model was trained on.
        rule: the default rule for the sinks, a name of `engine.stream.kv_cache.Rule`.
    """

    slots: int
    sinks: int
    threshold: float | None = None
    wrap_at: int = 50
    rule: str = "reference"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Flow-matching noise levels and the list of denoising steps.

    Attributes:
        steps: timesteps, 0 to 1000, decreasing; with `warp`, positions in the table of timesteps.
        default_steps: how many of them are used unless the user chooses otherwise.
        shift: timestep shift of the sigma table.
        strength: value of the strength control at which the timesteps are exactly `steps`; also the share of noise
            that is then mixed into the encoded input of a still scene, times `noise`.
        noise: share of noise at a strength of 1; below 1, some of the input is left at every strength.
        drop: how far the first timestep of every chunk but a stream's first lies below 1000 times the share of noise
            that is mixed in: the released networks were distilled to be told a level below the true one. It is a
            constant of the release and does not follow from `steps`; that 1000 * `strength` - `drop` equals the first
            of them holds for the released list only.
        depth: by how much full motion lowers the share of noise.
        prediction: what the network predicts: "flow" (noise minus clean latent, as in Wan), "x0" (the clean latent), or
            "correction" (what to add to the best linear estimate of the clean latent, so that detail need not pass
            through the network; the skip connection of Karras et al., arXiv 2206.00364, channel by channel).
        signal: for "correction", the standard deviation of each latent channel, against unit noise; 0 for a channel
            that is empty before the network.
        fixed_noise: whether the noise is drawn once per seed; otherwise every chunk has new noise.
        warp: whether `steps` are positions in the scheduler's table of timesteps instead of timesteps, as in
            Self-Forcing (`warp_denoising_step`): position p is 1000 times the sigma of p / 1000, so with a shift of 5
            position 750 is timestep 937.5. Strength then moves the whole list: see `engine.stream.timesteps`.
        first_steps: the steps of a stream's first chunk, whatever number is chosen; empty for the same as later ones.
        clean_pass: whether the network was trained on a history without noise: when a chunk is finished, one more
            forward at timestep 0 writes its keys and values again. Such a network has one history, so successive
            chunks cannot share a forward.
        from_noise: whether every chunk starts from noise alone, so that strength and motion have no effect. The input
            then reaches the network as source channels (`StreamingNetwork.source_channels`).
    """

    steps: tuple[int, ...] = (700, 500, 400, 200)
    default_steps: int = 2
    shift: float = 8.0
    strength: float = 0.8
    noise: float = 1.0
    drop: int = 100
    depth: float = 0.1
    prediction: str = "flow"
    signal: tuple[float, ...] = ()
    fixed_noise: bool = False
    warp: bool = False
    first_steps: tuple[int, ...] = ()
    clean_pass: bool = False
    from_noise: bool = False


CODECS = {"full": "vae", "light": "light_vae", "tiny": "tiny_vae", "light-tiny": "light_tiny_vae"}
"""Role of each autoencoder's file, by the name of the autoencoder in `Config.vae`."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a model.

    Attributes:
        role: "dit", "adapter", "text", "tokenizer" or one of the roles in `CODECS`. Several files of one role are
            shards of one checkpoint, except adapters: these are added to the network one after the other.
        path: path in the repository.
        sha256: hash in hexadecimal; empty if it is not known.
        bytes: size; 0 if it is not known.
        repository, revision: repository on the Hugging Face hub, and commit or branch in it.
        about_bytes: approximate size, for files whose size is not known.
        strength: factor on an adapter's weights.
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
class CodecFootprint:
    """GPU memory of an autoencoder in bfloat16, for `engine.planning.vram`.

    All but `weights` are bytes per pixel of the picture.

    Attributes:
        weights: bytes of its weights, in the layout in which they are used.
        encoder, decoder: state of either side.
        windows: buffers that are kept between calls; with `together`, for each length of a chunk.
        window_frame: with `together`, what each latent frame of a chunk adds to them.
        encode, decode: temporary tensors of a chunk, at the peak.
        together: whether the latent frames of a chunk are encoded and decoded together; then `encode` and `decode` are
            those of one latent frame.
    """

    weights: float
    encoder: float
    decoder: float
    windows: float
    encode: float
    decode: float
    together: bool = False
    window_frame: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One row of the model table.

    Attributes:
        name: name in the configuration and on the command line.
        family: selects the builders in `engine.models.registry`.
        title: name for users.
        network: the network's sizes, in the family's own class.
        cache: the KV cache.
        schedule: the denoising steps.
        vae, text: settings for the family's own builders.
        frames_per_latent: pixel frames of a latent frame; the first latent frame of a stream has only one.
        first_latents: latent frames of a stream's first chunk.
        frames_per_block: latent frames of every later chunk, which are denoised together.
        stride: pixels per latent along each side.
        default_vae: the autoencoder for `Config.vae` = "auto", a name in `CODECS`.
        normalised_latents: whether the encoder returns normalised latents; otherwise its raw mean.
        files: the files of its weights; empty if it has none to download.
        licence: licence of the weights.
        codecs: memory of its autoencoders, by the names in `CODECS`; empty if it is not known.
        needs_gpu: whether it is too large to run on a CPU.
        notes: a remark for users.
        ema: whether the averaged weights (EMA) are used where a checkpoint has them beside the plain ones.
        vocabulary: the only words that it knows; None for a model that takes any sentence.
        unverified: what nobody has checked yet with the released weights; shown by `tidecast models list`.
        strength_curve: the strength that each tenth of the strength control stands for, from 0 to 1: eleven rising
            numbers, measured so that every tenth changes the picture equally (`tidecast bench looks`). Empty where the
            control is the strength itself, as in the release.
        blend_gain: how much longer the embedding of four equally blended prompts is made than the mean of theirs,
            measured so that such a blend changes the picture as much as they do (`tidecast bench looks`).
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
    codecs: Mapping[str, CodecFootprint] = field(default_factory=dict)
    needs_gpu: bool = False
    notes: str = ""
    ema: bool = False
    vocabulary: Vocabulary | None = None
    unverified: str = ""
    strength_curve: tuple[float, ...] = ()
    blend_gain: float = 1.0

    def strength_of(self, control: float) -> float:
        """The strength, 0 to 1, that the strength control stands for: linear between the tenths of the curve."""
        if not self.strength_curve:
            return control
        tenths = len(self.strength_curve) - 1
        below = min(int(control * tenths), tenths - 1)
        low, high = self.strength_curve[below : below + 2]
        return low + (high - low) * (control * tenths - below)

    def control_of(self, strength: float) -> float:
        """The setting of the strength control that stands for a strength: the inverse of `strength_of`, 0 to 1."""
        if not self.strength_curve:
            return strength
        tenths = len(self.strength_curve) - 1
        below = min(max(bisect_right(self.strength_curve, strength) - 1, 0), tenths - 1)
        low, high = self.strength_curve[below : below + 2]
        return min(max((below + (strength - low) / (high - low)) / tenths, 0.0), 1.0)

    @property
    def most_steps(self) -> int:
        """The largest number of denoising steps."""
        return len(self.schedule.steps)

    @property
    def batches(self) -> bool:
        """Whether the denoising steps of successive chunks can share one forward (stream batch)."""
        return not self.schedule.clean_pass

    @property
    def extra_forwards(self) -> int:
        """Forwards of a chunk besides its denoising steps."""
        return int(self.schedule.clean_pass)

    @property
    def first_frames(self) -> int:
        """Pixel frames of a stream's first chunk; the first latent frame has only one."""
        return 1 + self.frames_per_latent * (self.first_latents - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """One encoded prompt. Immutable.

    Attributes:
        text: the prompt.
        embedding: [text_len, text_dim], in host memory; rows after the prompt's last token are zero and are not masked
            in attention.
        unknown: words of the prompt that are not in the model's vocabulary, for models with a fixed one.
        trouble: what went wrong although the prompt can be used; empty when nothing went wrong.
    """

    text: str
    embedding: Tensor
    unknown: tuple[str, ...] = ()
    trouble: str = ""


class TextEncoder(Protocol):
    """Turns a prompt into a `Conditioning`. It may be slow, and is called from one thread at a time."""

    def encode(self, text: str) -> Conditioning:
        """Encode one prompt. A prompt that exceeds the model's text length is cut, with a warning in the log."""
        ...


class CodecState(Protocol):
    """State of a streaming encoder or decoder: tensors at fixed addresses, written in place.

    Attributes:
        started: one number in host memory, 0 until the first frame has been processed.
    """

    started: Tensor

    def reset(self) -> None:
        """Return to the state of a new stream."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that persists between calls, by name (for saving, restoring and memory accounting)."""
        ...


class Codec(Protocol):
    """A streaming video autoencoder ("VAE"). Successive calls give the same results as one call over the whole clip.

    Pixels are [B, 3, T, H, W] in [-1, 1], latents [B, C, F, h, w]. The encoder returns what the network takes: its raw
    mean, or normalised latents (`ModelSpec.normalised_latents`). The decoder takes the clean latents that the network
    predicts, and de-normalises them where the model needs it.

    Attributes:
        latent_channels: C.
        stride: pixels per latent along each side.
        frames_per_latent: pixel frames of every latent frame but the first.
    """

    latent_channels: int
    stride: int
    frames_per_latent: int

    def encoder_state(self, batch: int, height: int, width: int) -> CodecState:
        """A new state for encoding `batch` streams of height x width pixels."""
        ...

    def decoder_state(self, batch: int, height: int, width: int) -> CodecState:
        """A new state for decoding `batch` streams to height x width pixels."""
        ...

    def encode(self, video_BCTHW: Tensor, state: Any) -> Tensor:
        """Encode the next frames: 1 + n * `frames_per_latent` with a new state, n * `frames_per_latent` afterwards.

        `state` must be from this codec's `encoder_state`. Returns [B, C, F, h, w].
        """
        ...

    def decode(self, latent_BCFhw: Tensor, state: Any) -> Tensor:
        """Decode the next latent frames: the first one to 1 frame, each later one to `frames_per_latent`.

        `state` must be from this codec's `decoder_state`. Returns [B, 3, T, H, W].
        """
        ...
