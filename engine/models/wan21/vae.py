"""Wan2.1's causal video autoencoder (arXiv 2503.20314) as a streaming encoder and decoder with explicit state.

Pixel frame 0 corresponds to latent frame 0, and every four later pixel frames to one more latent frame.

Shape letters: N images (T * B, image t * B + b), C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models.codec_memory import CodecMemory, CodecStates, to_images, to_video
from engine.models.wan21 import norm_silu
from engine.models.wan21.vae_layers import (
    Attention,
    CausalConv,
    Downsample,
    NormSiLU,
    ResidualBlock,
    Run,
    Upsample,
)
from engine.models.wan21.vae_shape import VAEShape


class _Stack(nn.Module):
    """First and last layer of encoder and decoder."""

    conv1: CausalConv
    head: nn.ModuleDict

    def _head(self, name: str, x_NCHW: Tensor, run: Run) -> Tensor:
        """Norm, SiLU and the last convolution."""
        return self.head["2"](self.head["0"](x_NCHW, name, run.memory), run.batch)

    def _stem(self, name: str, x_NCHW: Tensor, run: Run) -> Tensor:
        """The first convolution."""
        window_NCHW, new_NCHW = run.memory.window(name, x_NCHW)
        new_NCHW.copy_(x_NCHW)
        run.memory.remember(name, window_NCHW)
        return self.conv1(window_NCHW, run.batch)


class Encoder(_Stack):
    """Pixels to the mean and log variance of the latents."""

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

    def forward(self, x_NCHW: Tensor, run: Run) -> Tensor:
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
            in_channels = width_in if level == 0 else width_in // 2  # an upsampling halves the width
            for block in range(shape.blocks + 1):
                name = f"decoder.upsamples.{len(layers)}"
                layers.append(ResidualBlock(name, in_channels if block == 0 else width_out, width_out))
            if level < len(temporal):
                layers.append(Upsample(f"decoder.upsamples.{len(layers)}", width_out, temporal[level]))
        self.upsamples = nn.ModuleList(layers)
        self.head = nn.ModuleDict({"0": NormSiLU(widths[-1]), "2": CausalConv(widths[-1], 3)})

    def forward(self, x_NCHW: Tensor, run: Run) -> Tensor:
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
    """The weights of encoder and decoder, with the names of the released checkpoint."""

    def __init__(self, shape: VAEShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.conv1 = CausalConv(2 * shape.latent, 2 * shape.latent, (1, 1, 1))
        self.conv2 = CausalConv(shape.latent, shape.latent, (1, 1, 1))
        self.decoder = Decoder(shape)


class WanCodec(CodecStates):
    """Streams pictures through a `WanVAE`; implements `engine.models.spec.Codec`.

    Args:
        network: the weights.
        normalised: whether encoding returns normalised latents; otherwise the raw mean. Decoding always takes
            normalised latents.
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

    def use(self, kernel: norm_silu.Kernel) -> None:
        """Compute the norms on a GPU with this kernel."""
        for module in self.network.modules():
            if isinstance(module, NormSiLU):
                module.kernel = kernel

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
        """(name, input channels, past frames, pixels per position) of each temporal convolution of a side."""
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
            ModelError: if the number of frames is not 1 + 4n for a new state, or 4n for a running one.
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
            run = Run(state, batch, first=start == 0 and bool(first))
            means.append(F.conv2d(self.network.encoder(x_NCHW, run), weight_OC11, bias_O))
            state.started.fill_(1)
        mean_NCHW = torch.cat(means)
        if self.normalised:
            mean_NCHW = (mean_NCHW - self.mean_1C11) / self.std_1C11
        return to_video(mean_NCHW, batch)

    @torch.no_grad()
    def decode(self, latent_BCFhw: Tensor, state: CodecMemory) -> Tensor:
        """Decode the next latents [B, C, F, h, w] to pixels [B, 3, T, H, W] in [-1, 1].

        The first latent frame of a new state becomes 1 frame, each later one 4. Pixels are clamped.
        """
        batch, conv2 = latent_BCFhw.shape[0], self.network.conv2
        pictures = []
        for index in range(latent_BCFhw.shape[2]):
            x_NCHW = to_images(latent_BCFhw[:, :, index : index + 1].to(self.mean_1C11.dtype))
            x_NCHW = F.conv2d(x_NCHW * self.std_1C11 + self.mean_1C11, conv2.weight[:, :, 0], conv2.bias)
            run = Run(state, batch, first=not int(state.started))
            pictures.append(self.network.decoder(x_NCHW, run).clamp_(-1, 1))
            state.started.fill_(1)
        return to_video(torch.cat(pictures), batch)


def _groups(frames: int, first: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the frames of each latent frame; `first` is 1 if the stream begins with these frames."""
    if first:
        yield 0, 1
    for start in range(first, frames, size):
        yield start, start + size
