"""The successor's autoencoder: every frame by itself, and a decoder that draws what the look says.

Each frame is cut into blocks of 8 x 8 pixels, and each block is projected onto a few principal components. No frame
sees another one, so fast motion leaves no ghosts. The components are even or odd about both axes, so that a latent
frame can be mirrored by flipping it and changing the signs of the odd ones.

A latent frame holds the components of four frames, frame by frame, and the *look*: channels that the encoder leaves
empty and the network fills in, and that tell the decoder what to draw. The decoder is a small U-Net that runs on each
frame separately. The look acts in two ways. Where it varies over the picture, it scales and shifts the coarse features
(FiLM, arXiv 1709.07871). Its mean over the picture mixes the kernels of the fine convolutions from a set of kernels
(CondConv, arXiv 1904.04971), together with a texture that repeats every 32 pixels and stands still; this costs nothing
per pixel, so that every word can have kernels of its own.

Shape letters: B batch, N frames (B times 4, or fewer), C channels, T pixel frames, F latent frames, H W pixels,
h w latent size (pixels / 8), I pixels of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from engine.models.ember.codec import GROUP, STRIDE, Memory, Residual

COMPONENTS = 24
"""Components kept of each block of 8 x 8 pixels in 3 colours."""

TILE = 16
"""Period of the texture that stands still, at half the pixels' resolution."""

LOOK_GAIN = 8.0
"""Gain of the look in a latent, so that a further denoising step still sees it in spite of the noise."""

SLOPE = 0.1
"""Slope of the fine layers' activation below 0. A plain ReLU once left every unit dead; see LOG.md."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels of the decoder.

    Attributes:
        eighth, quarter, context, half: at 1/8, 1/4 and 1/2 of the resolution; `context` enters the last.
        kernels: kernels of each set.
    """

    eighth: int = 64
    quarter: int = 40
    context: int = 20
    half: int = 32
    kernels: int = 64


class KernelSet(nn.Module):
    """A convolution whose kernel is a mixture: a common one, and `kernels` others, each with a weight."""

    def __init__(self, inputs: int, outputs: int, size: int, kernels: int) -> None:
        super().__init__()
        self.padding = size // 2
        self.weight = nn.Parameter(torch.empty(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weights = nn.Parameter(torch.empty(kernels, self.weight.numel()))
        self.biases = nn.Parameter(torch.zeros(kernels, outputs))

    def mixed(self, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel and bias for one mixture [kernels]."""
        weight = self.weight + (mixture @ self.weights).view(self.weight.shape)
        return weight, self.bias + mixture @ self.biases


class StyleDecoder(nn.Module):
    """Components and look to pixels.

    Args:
        look: look channels.
        widths: its size.
    """

    def __init__(self, look: int, widths: Widths) -> None:
        super().__init__()
        self.widths = widths
        eighth, quarter, half = widths.eighth, widths.quarter, widths.half
        self.enter = nn.Conv2d(COMPONENTS, eighth, 3, padding=1)
        self.at_eighth = nn.ModuleList((Residual(eighth), Residual(eighth)))
        self.to_quarter = nn.Linear(eighth + COMPONENTS, 4 * quarter)
        self.at_quarter = Residual(quarter)
        self.to_half = nn.Linear(quarter, 4 * widths.context)
        self.film = nn.Sequential(nn.Linear(look, 64), nn.SiLU(), nn.Linear(64, 4 * eighth + 8 * quarter))
        self.mixture = nn.Sequential(nn.Linear(look, 64), nn.SiLU(), nn.Linear(64, widths.kernels + 1))
        self.first = KernelSet(12 + widths.context, half, 3, widths.kernels)
        self.second = KernelSet(half, half, 3, widths.kernels)
        self.last = KernelSet(half, 12, 3, widths.kernels)
        self.colours = KernelSet(12, 12, 1, widths.kernels)
        self.texture = nn.Parameter(torch.zeros(widths.kernels, half * TILE * TILE))

    def mixed(self, look_BLhw: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the kernels [B, kernels], of unit mean square, and the share of the mirrors [B]."""
        weights, mirrors = self.mixture(look_BLhw.mean((2, 3))).split([self.widths.kernels, 1], 1)
        return functional.rms_norm(weights, (self.widths.kernels,)), mirrors[:, 0].sigmoid()

    def coarse(self, unit_NChw: Tensor, look_BLhw: Tensor) -> Tensor:
        """Features at a quarter of the resolution, [N, quarter, H / 4, W / 4], of the parts that see far."""
        widths = self.widths
        sizes = [widths.eighth] * 4 + [4 * widths.quarter] * 2
        scale1, shift1, scale2, shift2, scale3, shift3 = (
            self.film(look_BLhw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).split(sizes, 1)
        )
        x = self.at_eighth[0](_modulated(self.enter(unit_NChw), scale1, shift1))
        x = self.at_eighth[1](_modulated(x, scale2, shift2))
        # A matmul of each part, added up: to put the parts side by side first would cost as much again.
        parts = self.to_quarter.weight.split([widths.eighth, COMPONENTS], 1)
        seen = functional.linear(unit_NChw.permute(0, 2, 3, 1), parts[1], self.to_quarter.bias)
        seen = seen.add_(functional.linear(x.permute(0, 2, 3, 1), parts[0])).permute(0, 3, 1, 2)
        x = _modulated(seen, scale3, shift3)
        x = rearrange(x, "n (y x c) h w -> n (h y) (w x) c", y=2, x=2).permute(0, 3, 1, 2)
        quarter: Tensor = self.at_quarter(x)
        return quarter

    def fine(self, unit_NChw: Tensor, quarter_NCHW: Tensor, basis_CI: Tensor, mixture: Tensor) -> Tensor:
        """Draw frames of one look: pixels [N, 3, H, W].

        Tensors are laid out channels last, and rearranged as seldom as can be.

        Args:
            unit_NChw: components of unit variance.
            quarter_NCHW: from `coarse`.
            basis_CI: the pixels of each component, from `FrameCodec`.
            mixture: weights of the kernels [kernels].
        """
        count, _, h, w = unit_NChw.shape
        height, width = STRIDE // 2 * h, STRIDE // 2 * w
        unit = unit_NChw.permute(0, 2, 3, 1)
        frames = rearrange(unit @ basis_CI, "n h w (a y b x c) -> n h a y w b x c", a=2, y=2, b=2, x=2)
        context = functional.linear(quarter_NCHW.permute(0, 2, 3, 1), self.to_half.weight, self.to_half.bias)
        context = rearrange(context, "n (h a) (w b) (y x c) -> n h a y w b x c", a=2, b=2, y=2, x=2)
        x = torch.cat((frames, context), -1).view(count, height, width, -1).permute(0, 3, 1, 2)
        x = functional.conv2d(x, *self.first.mixed(mixture), padding=1)
        texture = (mixture @ self.texture).view(-1, TILE, TILE)
        x = x.add_(texture.repeat(1, -(-height // TILE), -(-width // TILE))[:, :height, :width])
        x = functional.leaky_relu_(x, SLOPE)
        x = functional.leaky_relu_(functional.conv2d(x, *self.second.mixed(mixture), padding=1), SLOPE)
        x = functional.conv2d(x, *self.last.mixed(mixture), padding=1).permute(0, 2, 3, 1)
        kernel, bias = self.colours.mixed(mixture)
        plain = functional.linear(unit, (basis_CI.view(-1, 12) @ kernel.view(12, 12).T).view(len(basis_CI), -1).T)
        plain = rearrange(plain, "n h w (i j c) -> n h i w j c", i=STRIDE // 2, j=STRIDE // 2)
        made = x.unflatten(2, (w, -1)).unflatten(1, (h, -1)) + plain + bias
        return rearrange(made, "n h i w j (c y x) -> n c (h i y) (w j x)", y=2, x=2)


def _modulated(x_NChw: Tensor, scale_BChw: Tensor, shift_BChw: Tensor) -> Tensor:
    """x * (1 + scale) + shift, with one scale and shift for all frames of a look, not copied for each."""
    frames = x_NChw.unflatten(0, (len(scale_BChw), -1))
    return torch.addcmul(shift_BChw[:, None], frames, 1 + scale_BChw[:, None]).flatten(0, 1)


class FrameCodec(nn.Module):
    """The autoencoder; implements `engine.models.spec.Codec`.

    Args:
        look: look channels.
        widths: size of the decoder.
    """

    stride = STRIDE
    frames_per_latent = GROUP
    basis: Tensor
    spread: Tensor
    scale: Tensor
    signs: Tensor

    def __init__(self, look: int, widths: Widths | None = None) -> None:
        super().__init__()
        self.look = look
        self.picture = GROUP * COMPONENTS
        self.latent_channels = self.picture + look
        self.decoder = StyleDecoder(look, widths or Widths())
        self.register_buffer("basis", torch.zeros(COMPONENTS, 3 * STRIDE * STRIDE))
        self.register_buffer("spread", torch.ones(COMPONENTS))  # standard deviation of each component in pixels
        self.register_buffer("scale", torch.ones(COMPONENTS))  # and in a latent
        self.register_buffer("signs", torch.ones(2, COMPONENTS))  # under a flip of the columns, and of the rows
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Random convolutions; the picture passes through unchanged at first, whatever the look is."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(std=module.weight[0].numel() ** -0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, KernelSet):
                fan_in = module.weight[0].numel()
                module.weight.normal_(std=fan_in**-0.5, generator=generator)
                module.weights.normal_(std=(2 * fan_in * len(module.weights)) ** -0.5, generator=generator)
        decoder = self.decoder
        for residual in (*decoder.at_eighth, decoder.at_quarter):
            residual.second.weight.mul_(0.3)
        decoder.film[-1].weight.mul_(0.5)
        decoder.mixture[-1].bias[-1] = -2.0  # no mirrors
        decoder.texture.normal_(std=0.2 * len(decoder.texture) ** -0.5, generator=generator)
        decoder.last.weight.mul_(0.1)
        decoder.last.weights.mul_(0.3)
        decoder.colours.weight.copy_(torch.eye(12)[:, :, None, None])
        decoder.colours.weights.mul_(0.2)

    def encoder_state(self, batch: int, height: int, width: int) -> Memory:
        """A new state for encoding: it only tells whether there has been a frame."""
        return Memory.like(self.basis, batch, 0)

    def decoder_state(self, batch: int, height: int, width: int) -> Memory:
        """A new state for decoding: it only tells whether there has been a latent."""
        return Memory.like(self.basis, batch, 0)

    def encode(self, video_BCTHW: Tensor, state: Memory) -> Tensor:
        """Encode the next frames: 1 + 4n with a new state (the first counts four times), 4n afterwards.

        Args:
            video_BCTHW: pixels in [-1, 1]; H and W multiples of 8.
            state: from `encoder_state`; it is updated.

        Returns:
            Latents [B, C, F, h, w], scaled.
        """
        batch, _, count, height, width = video_BCTHW.shape
        frames = video_BCTHW.to(self.basis.dtype).transpose(1, 2).flatten(0, 1)
        latents = self.encode_frames(frames).unflatten(0, (batch, count))
        if not state.started:
            state.started.fill_(True)
            latents = torch.cat((latents[:, :1].expand(-1, GROUP - 1, -1, -1, -1), latents), 1)
        size = (height // STRIDE, width // STRIDE)
        picture = latents.reshape(batch, -1, self.picture, *size).transpose(1, 2)
        empty = picture.new_zeros(batch, self.look, picture.shape[2], *size)
        return torch.cat((picture, empty), 1)

    def decode(self, latent_BCFhw: Tensor, state: Memory) -> Tensor:
        """Decode the next latent frames: the first one of a new state to 1 frame, each later one to 4.

        Returns:
            Pixels [B, 3, T, H, W], about in [-1, 1], not clamped.
        """
        videos = []
        for latent in latent_BCFhw.to(self.basis.dtype).unbind(2):
            first = not bool(state.started)
            if first:
                state.started.fill_(True)
            picture, look = latent.split([self.picture, self.look], 1)
            frames = picture.unflatten(1, (GROUP, COMPONENTS))
            frames = frames[:, -1:] if first else frames
            made = self.decode_frames(frames.flatten(0, 1), look / LOOK_GAIN)
            videos.append(made.unflatten(0, (len(latent), -1)).transpose(1, 2))
        return torch.cat(videos, dim=2)

    def encode_frames(self, frames_N3HW: Tensor) -> Tensor:
        """Frames in [-1, 1] to components [N, COMPONENTS, h, w], scaled."""
        blocks = functional.pixel_unshuffle(frames_N3HW, STRIDE)
        gain = (self.scale / self.spread)[:, None]
        return functional.conv2d(blocks, (self.basis * gain)[:, :, None, None])

    def decode_frames(self, picture_NChw: Tensor, look_BLhw: Tensor) -> Tensor:
        """Components of frames, as `encode_frames` returns them, to frames [N, 3, H, W].

        Args:
            picture_NChw: the same number of successive frames for each look.
            look_BLhw: what to draw, of about unit variance.
        """
        batch = len(look_BLhw)
        unit = (picture_NChw / self.scale[:, None, None]).contiguous(memory_format=torch.channels_last)
        mixture, mirrors = self.decoder.mixed(look_BLhw)
        mirrors = mirrors.repeat_interleave(len(unit) // batch)[:, None, None, None]
        unit = torch.lerp(unit, self.mirrored(unit), mirrors)
        quarter, basis = self.decoder.coarse(unit, look_BLhw), self._pixels()
        made = [
            self.decoder.fine(each, features, basis, weights)
            for each, features, weights in zip(unit.chunk(batch), quarter.chunk(batch), mixture, strict=True)
        ]
        return torch.cat(made) if batch > 1 else made[0]

    def linear_frames(self, unit_NChw: Tensor) -> Tensor:
        """What the components alone describe: pixels [N, 3, H, W]."""
        blocks = unit_NChw.permute(0, 2, 3, 1) @ self._pixels()
        return rearrange(blocks, "n h w (i j c y x) -> n c (h i y) (w j x)", i=4, j=4, y=2, x=2)

    def _pixels(self) -> Tensor:
        """The pixels of each component of unit variance [C, I]: rows and columns of 2 x 2 pixels, then colours."""
        basis = (self.basis * self.spread[:, None]).view(COMPONENTS, 3, STRIDE // 2, 2, STRIDE // 2, 2)
        return rearrange(basis, "k c i y j x -> k (i j c y x)")

    def mirrored(self, unit_NChw: Tensor) -> Tensor:
        """The upper left quarter of the components four times, mirrored about the picture's centre."""
        x = unit_NChw
        for axis, signs in ((3, self.signs[0]), (2, self.signs[1])):
            length = x.shape[axis]
            flipped = x.flip(axis) * signs[:, None, None]
            place = torch.arange(length, device=x.device) * 2 - (length - 1)
            share = ((place > 0) + 0.5 * (place == 0)).to(x)  # a block in the middle becomes symmetric
            x = torch.lerp(x, flipped, share.view([-1 if n == axis else 1 for n in range(4)]))
        return x


@torch.no_grad()
def principal_components(codec: FrameCodec, frames_N3HW: Tensor, weakest: float) -> float:
    """Set the linear maps to the best symmetric ones for these frames.

    Each component is even or odd about both axes. In a latent, components are scaled by the square root of their
    standard deviation, so that coarse structure stays visible at higher noise levels than detail.

    Args:
        codec: receives them.
        frames_N3HW: pixels in [-1, 1].
        weakest: standard deviation of the weakest component in a latent, against unit noise.

    Returns:
        Their peak signal-to-noise ratio on these frames in dB.
    """
    blocks = functional.pixel_unshuffle(frames_N3HW, STRIDE).permute(0, 2, 3, 1).reshape(-1, 3 * STRIDE * STRIDE)
    mean = blocks.mean(0)
    covariance = torch.cov((blocks - mean).T).double().view(3, STRIDE, STRIDE, 3, STRIDE, STRIDE)
    covariance = (covariance + covariance.flip(1, 4)) / 2
    covariance = ((covariance + covariance.flip(2, 5)) / 2).reshape(len(mean), len(mean))
    flips = [torch.arange(len(mean)).view(3, STRIDE, STRIDE).flip(axis).flatten() for axis in (2, 1)]
    found = []
    for column_sign in (1.0, -1.0):
        for row_sign in (1.0, -1.0):
            project = torch.eye(len(mean), dtype=torch.float64)
            for flip, sign in zip(flips, (column_sign, row_sign), strict=True):
                project = (project + sign * project[flip]) / 2
            values, vectors = torch.linalg.eigh(project @ covariance @ project.T)
            found += [(float(v), vectors[:, n].float(), column_sign, row_sign) for n, v in enumerate(values)]
    found.sort(key=lambda each: -each[0])
    kept = found[:COMPONENTS]
    codec.basis.copy_(torch.stack([vector for _, vector, _, _ in kept]))
    codec.signs.copy_(torch.tensor([[column for *_, column, _ in kept], [row for *_, row in kept]]))
    spread = torch.tensor([value for value, *_ in kept]).sqrt()
    codec.spread.copy_(spread)
    codec.scale.copy_(spread.sqrt() * (weakest / spread[-1].sqrt()))
    error = covariance.diagonal().sum() - sum(value for value, *_ in kept)
    return float(-10 * (error / len(mean) / 4).log10())
