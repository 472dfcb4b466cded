"""Wan2.1's causal video autoencoder as a streaming encoder and decoder with explicit state.

Knows its own layers and nothing of the stream, the network or files. Keys are those of `Wan2.1_VAE.pth`.
Pixel frame 0 makes latent frame 0; every four later ones make one more, and back.

Activations are time-major: N = T * B images, image t * B + b, each channels last, so that a run of frames is one
contiguous piece of memory and most layers are plain 2-D convolutions over all frames at once. What a layer needs
of the past (two frames per temporal convolution, one before a temporal downsampling) lies in a `CodecMemory`.

Shape letters: N images (T * B), C channels, H W height and width, O output channels, K temporal taps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models import conv
from engine.models.codec_memory import CodecMemory, CodecStates, to_images, to_video


@dataclass(frozen=True, slots=True)
class VAEShape:
    """Widths of the autoencoder and the statistics of its latents.

    `multipliers` of `base` give the width per resolution (each half as large as the one before); `temporal`
    says which of the steps down also halve time. `mean` and `std` (per latent channel) normalise latents.
    """

    base: int = 96
    latent: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    temporal: tuple[bool, ...] = (False, True, True)
    mean: tuple[float, ...] = (
        -0.7571,
        -0.7089,
        -0.9113,
        0.1075,
        -0.1745,
        0.9653,
        -0.1517,
        1.5508,
        0.4134,
        -0.0715,
        0.5517,
        -0.3632,
        -0.1922,
        -0.9497,
        0.2503,
        -0.2921,
    )
    std: tuple[float, ...] = (
        2.8184,
        1.4541,
        2.3275,
        2.6558,
        1.2196,
        1.7708,
        2.6052,
        2.0743,
        3.2687,
        2.1526,
        2.8652,
        1.5579,
        1.6382,
        1.1253,
        2.8251,
        1.9160,
    )

    @property
    def stride(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def frames_per_latent(self) -> int:
        """Pixel frames per latent frame (after the first)."""
        return int(2 ** sum(self.temporal))


class CausalConv(nn.Module):
    """3-D convolution that sees the present and the past, in a window that brings both. Space is padded with zeros."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.arranged: conv.TemporalConv | None = None

    @property
    def past(self) -> int:
        """Input frames that it needs from before the present."""
        return int(self.weight.shape[2]) - 1

    def prepare(self) -> None:
        """Arrange the weights for running; again after they or their device changed."""
        self.arranged = conv.TemporalConv(self.weight, self.bias)

    def forward(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """Convolve a window of `past` + T frames into T frames."""
        if self.arranged is None:
            raise ModelError("the autoencoder was used before prepare().")
        return self.arranged(window_NCHW, batch)


class NormSiLU(nn.Module):
    """RMS norm over channels, then SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, 1, 1, 1))

    def forward(self, x_NCHW: Tensor, out_NCHW: Tensor) -> None:
        """Write SiLU(norm(x)) into `out_NCHW`."""
        _rms_norm(x_NCHW, self.gamma.view(1, -1, 1, 1), out_NCHW)
        F.silu(out_NCHW, inplace=True)


def _rms_norm(x_NCHW: Tensor, gamma_1C11: Tensor, out_NCHW: Tensor) -> None:
    smallest = max(1e-12, torch.finfo(x_NCHW.dtype).tiny)
    length_N1HW = torch.linalg.vector_norm(x_NCHW, dim=1, keepdim=True).clamp_(min=smallest)
    torch.mul(x_NCHW, length_N1HW.reciprocal_(), out=out_NCHW)
    out_NCHW.mul_(gamma_1C11 * x_NCHW.shape[1] ** 0.5)


@dataclass(frozen=True, slots=True)
class _Run:
    """One pass through a stack: its memory, the batch size, and whether these are the stream's first frames."""

    memory: CodecMemory
    batch: int
    first: bool


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, around a shortcut."""

    def __init__(self, name: str, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.name = name
        self.residual = nn.ModuleDict(
            {
                "0": NormSiLU(in_channels),
                "2": CausalConv(in_channels, out_channels),
                "3": NormSiLU(out_channels),
                "6": CausalConv(out_channels, out_channels),
            }
        )
        self.shortcut = CausalConv(in_channels, out_channels, (1, 1, 1)) if in_channels != out_channels else None

    def forward(self, x_NCHW: Tensor, run: _Run) -> Tensor:
        """Same images, `out_channels` wide."""
        h_NCHW = x_NCHW
        for norm, convolution in (("0", "2"), ("3", "6")):
            name = f"{self.name}.residual.{convolution}"
            window_NCHW, room_NCHW = run.memory.window(name, h_NCHW)
            self.residual[norm](h_NCHW, room_NCHW)
            h_NCHW = self.residual[convolution](window_NCHW, run.batch)
            run.memory.remember(name, window_NCHW)
        return h_NCHW.add_(x_NCHW if self.shortcut is None else self.shortcut(x_NCHW, run.batch))


class Attention(nn.Module):
    """Self-attention of each image over its own positions, with one head."""

    class _Gain(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.empty(channels, 1, 1))

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = self._Gain(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_NCHW: Tensor, run: _Run) -> Tensor:
        """Same shape."""
        n, c, height, width = x_NCHW.shape
        h_NCHW = torch.empty_like(x_NCHW)
        _rms_norm(x_NCHW, self.norm.gamma[None], h_NCHW)
        tokens_NLC = h_NCHW.permute(0, 2, 3, 1).reshape(n, height * width, c)
        qkv_NLC = F.linear(tokens_NLC, self.to_qkv.weight.view(3 * c, c), self.to_qkv.bias)
        q, k, v = qkv_NLC[:, None].chunk(3, dim=-1)
        mixed_NLC = F.scaled_dot_product_attention(q, k, v)[:, 0]
        mixed_NLC = F.linear(mixed_NLC, self.proj.weight.view(c, c), self.proj.bias)
        return x_NCHW + mixed_NLC.view(n, height, width, c).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Halves the picture, and time where asked. The stream's first frame keeps its own time step."""

    def __init__(self, name: str, channels: int, temporal: bool) -> None:
        super().__init__()
        self.name = f"{name}.time_conv"
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2)})
        self.time_conv = CausalConv(channels, channels, (3, 1, 1)) if temporal else None

    def forward(self, x_NCHW: Tensor, run: _Run) -> Tensor:
        """[T*B, C, H, W] to [T*B, C, H/2, W/2], or half the T where time is halved."""
        x_NCHW = self.resample["1"](F.pad(x_NCHW, (0, 1, 0, 1)))
        if self.time_conv is None:
            return x_NCHW
        if run.first:
            run.memory.remember(self.name, x_NCHW)
            return x_NCHW
        window_NCHW, room_NCHW = run.memory.window(self.name, x_NCHW)
        room_NCHW.copy_(x_NCHW)
        run.memory.remember(self.name, window_NCHW)
        window_TBCHW = window_NCHW.unflatten(0, (-1, run.batch))
        taps = [window_TBCHW[k : k - 2 or None : 2].flatten(0, 1) for k in range(3)]
        return conv.pointwise_taps(taps, self.time_conv.weight, self.time_conv.bias)


class Upsample(nn.Module):
    """Doubles the picture (nearest, then a convolution to half the width), and time where asked."""

    def __init__(self, name: str, channels: int, temporal: bool) -> None:
        super().__init__()
        self.name = f"{name}.time_conv"
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels // 2, 3, padding=1)})
        self.time_conv = CausalConv(channels, 2 * channels, (3, 1, 1)) if temporal else None
        self.arranged: conv.UpsampleConv | None = None

    def prepare(self) -> None:
        """Arrange the weights for running."""
        convolution = cast(nn.Conv2d, self.resample["1"])
        self.arranged = conv.UpsampleConv(convolution.weight, cast(Tensor, convolution.bias))

    def forward(self, x_NCHW: Tensor, run: _Run) -> Tensor:
        """[T*B, C, H, W] to [T*B, C/2, 2H, 2W], or twice the T; the stream's first frame stays single."""
        if self.time_conv is not None and not run.first:
            window_NCHW, room_NCHW = run.memory.window(self.name, x_NCHW)
            room_NCHW.copy_(x_NCHW)
            run.memory.remember(self.name, window_NCHW)
            n = x_NCHW.shape[0]
            taps = [window_NCHW[k * run.batch : k * run.batch + n] for k in range(3)]
            pair_NCHW = conv.pointwise_taps(taps, self.time_conv.weight, self.time_conv.bias)
            pair_TBCHW = pair_NCHW.unflatten(0, (-1, run.batch))
            x_NCHW = torch.stack(pair_TBCHW.chunk(2, dim=2), dim=1).flatten(0, 2)
        if self.arranged is None:
            raise ModelError("the autoencoder was used before prepare().")
        return self.arranged(x_NCHW.contiguous(memory_format=torch.channels_last))


class _Stack(nn.Module):
    """What encoder and decoder share: running their layers in order over a state."""

    conv1: CausalConv
    head: nn.ModuleDict

    def _head(self, name: str, x_NCHW: Tensor, run: _Run) -> Tensor:
        window_NCHW, room_NCHW = run.memory.window(name, x_NCHW)
        self.head["0"](x_NCHW, room_NCHW)
        run.memory.remember(name, window_NCHW)
        return self.head["2"](window_NCHW, run.batch)

    def _stem(self, name: str, x_NCHW: Tensor, run: _Run) -> Tensor:
        window_NCHW, room_NCHW = run.memory.window(name, x_NCHW)
        room_NCHW.copy_(x_NCHW)
        run.memory.remember(name, window_NCHW)
        return self.conv1(window_NCHW, run.batch)


class Encoder(_Stack):
    """Pixels to (mean, log variance) of the latents."""

    def __init__(self, shape: VAEShape) -> None:
        super().__init__()
        widths = [shape.base * m for m in (1, *shape.multipliers)]
        self.conv1 = CausalConv(3, widths[0])
        layers: list[nn.Module] = []
        for level, (width_in, width_out) in enumerate(pairwise(widths)):
            for block in range(shape.blocks):
                name = f"encoder.downsamples.{len(layers)}"
                layers.append(ResidualBlock(name, width_in if block == 0 else width_out, width_out))
            if level < len(shape.temporal):
                name = f"encoder.downsamples.{len(layers)}"
                layers.append(Downsample(name, width_out, shape.temporal[level]))
        self.downsamples = nn.ModuleList(layers)
        self.middle = _middle("encoder", widths[-1])
        self.head = nn.ModuleDict({"0": NormSiLU(widths[-1]), "2": CausalConv(widths[-1], 2 * shape.latent)})

    def forward(self, x_NCHW: Tensor, run: _Run) -> Tensor:
        """[T*B, 3, H, W] to [F*B, 2 * latent, h, w]."""
        x_NCHW = self._stem("encoder.conv1", x_NCHW, run)
        for layer in (*self.downsamples, *self.middle):
            x_NCHW = layer(x_NCHW, run)
        return self._head("encoder.head.2", x_NCHW, run)


class Decoder(_Stack):
    """Latents to pixels."""

    def __init__(self, shape: VAEShape) -> None:
        super().__init__()
        widths = [shape.base * m for m in (shape.multipliers[-1], *reversed(shape.multipliers))]
        temporal = tuple(reversed(shape.temporal))
        self.conv1 = CausalConv(shape.latent, widths[0])
        self.middle = _middle("decoder", widths[0])
        layers: list[nn.Module] = []
        for level, (width_in, width_out) in enumerate(pairwise(widths)):
            entering = width_in if level == 0 else width_in // 2
            for block in range(shape.blocks + 1):
                name = f"decoder.upsamples.{len(layers)}"
                layers.append(ResidualBlock(name, entering if block == 0 else width_out, width_out))
            if level < len(temporal):
                layers.append(Upsample(f"decoder.upsamples.{len(layers)}", width_out, temporal[level]))
        self.upsamples = nn.ModuleList(layers)
        self.head = nn.ModuleDict({"0": NormSiLU(widths[-1]), "2": CausalConv(widths[-1], 3)})

    def forward(self, x_NCHW: Tensor, run: _Run) -> Tensor:
        """[F*B, latent, h, w] to [T*B, 3, H, W]."""
        x_NCHW = self._stem("decoder.conv1", x_NCHW, run)
        for layer in (*self.middle, *self.upsamples):
            x_NCHW = layer(x_NCHW, run)
        return self._head("decoder.head.2", x_NCHW, run)


def _middle(side: str, width: int) -> nn.ModuleList:
    return nn.ModuleList(
        [
            ResidualBlock(f"{side}.middle.0", width, width),
            Attention(width),
            ResidualBlock(f"{side}.middle.2", width, width),
        ]
    )


class WanVAE(nn.Module):
    """The network alone: weights under the released names."""

    def __init__(self, shape: VAEShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.conv1 = CausalConv(2 * shape.latent, 2 * shape.latent, (1, 1, 1))
        self.conv2 = CausalConv(shape.latent, shape.latent, (1, 1, 1))
        self.decoder = Decoder(shape)


class WanCodec(CodecStates):
    """Streams pictures through a `WanVAE`; implements `engine.models.spec.Codec`.

    Encoding returns the raw mean, or with `normalised` the mean in the space that decoding takes. Decoding takes
    latents in normalised space (what the network calls clean), de-normalises them, and returns pixels clamped to
    [-1, 1].
    """

    def __init__(self, network: WanVAE, *, normalised: bool = False) -> None:
        self.normalised = normalised
        self.network = network.eval().requires_grad_(False)
        self.shape = network.shape
        self.latent_channels = network.shape.latent
        self.stride = network.shape.stride
        self.frames_per_latent = network.shape.frames_per_latent
        weight = network.conv2.weight
        self.mean_1C11 = weight.new_tensor(network.shape.mean).view(1, -1, 1, 1)
        self.std_1C11 = weight.new_tensor(network.shape.std).view(1, -1, 1, 1)
        for module in network.modules():
            if isinstance(module, CausalConv | Upsample):
                module.prepare()

    def _new_memory(self, side: str, batch: int, height: int, width: int) -> CodecMemory:
        weight = self.network.conv2.weight
        memory = {}
        for name, channels, past, shrink in self._memories(side):
            memory[name] = torch.zeros(
                (past * batch, channels, height // shrink, width // shrink),
                dtype=weight.dtype,
                device=weight.device,
            ).contiguous(memory_format=torch.channels_last)
        return CodecMemory(memory)

    def _memories(self, side: str) -> Iterator[tuple[str, int, int, int]]:
        """Each temporal convolution of one end: (name, input channels, frames kept, pixels per position)."""
        shrink = 1 if side == "encoder" else self.stride
        for name, module in self.network.named_modules():
            if not name.startswith(f"{side}."):
                continue
            if isinstance(module, Downsample):
                shrink *= 2
                if module.time_conv is not None:
                    yield module.name, module.time_conv.weight.shape[1], 1, shrink
            elif isinstance(module, Upsample):
                if module.time_conv is not None:
                    yield module.name, module.time_conv.weight.shape[1], module.time_conv.past, shrink
                shrink //= 2
            elif isinstance(module, CausalConv) and module.past and not name.endswith("time_conv"):
                yield name, module.weight.shape[1], module.past, shrink

    @torch.no_grad()
    def encode(self, video_BCTHW: Tensor, state: CodecMemory) -> Tensor:
        """Encode the next frames of [B, 3, T, H, W] in [-1, 1] to latents [B, C, F, h, w].

        Raises:
            ModelError: if a new state is not given 1 + 4n frames, or a running one not 4n.
        """
        frames = video_BCTHW.shape[2]
        first = 0 if int(state.started) else 1
        if frames < 1 or (frames - first) % self.frames_per_latent:
            raise ModelError(
                f"{frames} frames were given, but the encoder takes "
                f"{'1 + ' if first else ''}a multiple of {self.frames_per_latent}."
            )
        batch, conv1, latent = video_BCTHW.shape[0], self.network.conv1, self.latent_channels
        weight_OC11, bias_O = conv1.weight[:latent, :, 0], conv1.bias[:latent]
        means = []
        for start, stop in _groups(frames, first, self.frames_per_latent):
            x_NCHW = to_images(video_BCTHW[:, :, start:stop].to(self.mean_1C11.dtype))
            run = _Run(state, batch, first=start == 0 and bool(first))
            means.append(F.conv2d(self.network.encoder(x_NCHW, run), weight_OC11, bias_O))
            state.started.fill_(1)
        mean_NCHW = torch.cat(means)
        if self.normalised:
            mean_NCHW = (mean_NCHW - self.mean_1C11) / self.std_1C11
        return to_video(mean_NCHW, batch)

    @torch.no_grad()
    def decode(self, latent_BCFhw: Tensor, state: CodecMemory) -> Tensor:
        """Decode the next latents [B, C, F, h, w] to pixels [B, 3, T, H, W] in [-1, 1].

        The first latent frame of a new state gives 1 frame, every later one 4.
        """
        batch, conv2 = latent_BCFhw.shape[0], self.network.conv2
        pictures = []
        for index in range(latent_BCFhw.shape[2]):
            x_NCHW = to_images(latent_BCFhw[:, :, index : index + 1].to(self.mean_1C11.dtype))
            x_NCHW = F.conv2d(x_NCHW * self.std_1C11 + self.mean_1C11, conv2.weight[:, :, 0], conv2.bias)
            run = _Run(state, batch, first=not int(state.started))
            pictures.append(self.network.decoder(x_NCHW, run).clamp_(-1, 1))
            state.started.fill_(1)
        return to_video(torch.cat(pictures), batch)


def _groups(frames: int, first: int, size: int) -> Iterator[tuple[int, int]]:
    if first:
        yield 0, 1
    for start in range(first, frames, size):
        yield start, start + size
