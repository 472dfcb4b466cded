"""Ember's streaming video autoencoder: four frames of 8 x 8 pixels to one latent vector, and back.

A linear map over blocks of 4 x 8 x 8 pixels (initialised with principal components) carries most of the picture, and
convolutions correct it in encoder and decoder. All convolutions are two-dimensional, with the four frames of a group
stacked as channels, which is fastest on a CPU. The state consists of one frame and one latent: the encoder also reads
the frame before its group, the decoder the latent before its own. A stream's first frame is encoded as a group of four
copies, so that successive calls compute the same as one call over the whole clip.

Shape letters: B batch, C channels, T pixel frames, H W pixels, F latent frames, h w latent size (pixels / 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 8
GROUP = 4
"""Pixel frames of a latent frame; a group is the frames of one latent frame."""


class Residual(nn.Module):
    """Residual block of two 3 x 3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] to the same shape."""
        return x + self.second(functional.silu(self.first(functional.silu(x))))


class Encoder(nn.Module):
    """A group of four frames and the frame before it to one latent frame, not normalised yet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3 * GROUP, channels, STRIDE, STRIDE)
        self.correction = nn.Sequential(
            nn.Conv2d(3 * (GROUP + 1), 48, 4, 4),
            Residual(48),
            nn.Conv2d(48, 72, 4, 2, padding=1),
            Residual(72),
            nn.Conv2d(72, channels, 1),
        )

    def forward(self, group_BCHW: Tensor, before_BCHW: Tensor) -> Tensor:
        """Frames stacked as channels [B, 12, H, W], and the frame before them [B, 3, H, W], to [B, C, h, w]."""
        blocks = functional.pixel_unshuffle(group_BCHW, STRIDE)
        linear = functional.conv2d(blocks, self.linear.weight.flatten(1)[:, :, None, None], self.linear.bias)
        return linear + self.correction(torch.cat((before_BCHW, group_BCHW), 1))


class Decoder(nn.Module):
    """Picture and look channels of a latent frame, and the picture channels of the previous one, to four frames.

    The coarse convolutions read the whole group. The last ones, at half the resolution, run on each frame separately,
    so that the texture that they draw moves with the frame. The look, which describes the style, scales and shifts the
    features of both (FiLM, arXiv 1709.07871). For the coarse features it is constant within a latent's cell; for the
    fine ones it is interpolated between cells, so that no borders are visible.

    Args:
        picture, look: number of picture and look channels.
    """

    def __init__(self, picture: int, look: int) -> None:
        super().__init__()
        eighth, quarter, context, width = 96, 64, 8, 32
        self.width = width
        self.linear = nn.Conv2d(picture, 3 * GROUP * STRIDE * STRIDE, 1)
        self.enter = nn.Conv2d(2 * picture + look, eighth, 3, padding=1)
        self.at_eighth = nn.Sequential(
            Residual(eighth), Residual(eighth), nn.Conv2d(eighth, 4 * quarter, 1), nn.PixelShuffle(2)
        )
        self.at_quarter = nn.Sequential(Residual(quarter), nn.Conv2d(quarter, 4 * GROUP * context, 1))
        self.coarse_look = nn.Sequential(nn.Conv2d(look, 64, 1), nn.SiLU(), nn.Conv2d(64, 2 * (eighth + quarter), 1))
        self.look = nn.Sequential(nn.Conv2d(look, 64, 1), nn.SiLU(), nn.Conv2d(64, 4 * width + 12, 1))
        self.first = nn.Conv2d(12 + context, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width + 12, 12, 3, padding=1)

    def forward(self, picture_BChw: Tensor, before_BChw: Tensor, look_BChw: Tensor) -> Tensor:
        """[B, C, h, w] each to frames stacked as channels [B, 12, H, W]."""
        coarse = self.coarse_look(look_BChw).split([self.enter.out_channels] * 2 + [self.at_quarter[0].width] * 2, 1)
        x = self.enter(torch.cat((picture_BChw, before_BChw, look_BChw), 1))
        x = self.at_eighth(torch.addcmul(coarse[1], x, 1 + coarse[0]))
        scale, shift = (functional.interpolate(part, scale_factor=2, mode="nearest") for part in coarse[2:])
        context = self.at_quarter(torch.addcmul(shift, x, 1 + scale))

        unshuffle = "b (t c i y j x) h w -> (b t) (h i) (w j) (c y x)"
        frames = rearrange(self.linear(picture_BChw), unshuffle, t=GROUP, c=3, y=2, j=STRIDE // 2, x=2)
        context = rearrange(context, "b (t c y x) h w -> (b t) (h y) (w x) c", t=GROUP, y=2, x=2)
        frames, context = (x.permute(0, 3, 1, 2) for x in (frames, context))
        parts = self.look(look_BChw).split([self.width] * 4 + [12], 1)
        scale1, shift1, scale2, shift2, gate = (
            _upsampled(x + one) for x, one in zip(parts, (1, 0, 1, 0, 1), strict=True)
        )
        x = functional.silu(_modulated(_convolve_pair(self.first, frames, context), scale1, shift1), inplace=True)
        x = functional.silu(_modulated(self.second(x), scale2, shift2), inplace=True)
        x = _convolve_pair(self.last, x, _modulated(frames, gate))
        return rearrange(x, "(b t) (c y x) h w -> b (t c) (h y) (w x)", t=GROUP, y=2, x=2)


def _upsampled(x_BChw: Tensor) -> Tensor:
    """[B, C, h, w] interpolated to half the pixels' resolution: [B, 1, C, H / 2, W / 2]."""
    x = x_BChw.contiguous(memory_format=torch.channels_last)
    return functional.interpolate(x, scale_factor=STRIDE // 2, mode="bilinear")[:, None]


def _convolve_pair(layer: nn.Conv2d, a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """A 3 x 3 convolution of two inputs, as if concatenated along the channels; the copy would cost as much again."""
    parts = layer.weight.split([a_NCHW.shape[1], b_NCHW.shape[1]], 1)
    first = functional.conv2d(a_NCHW, parts[0], layer.bias, padding=1)
    return first.add_(functional.conv2d(b_NCHW, parts[1], padding=1))


def _modulated(x_NCHW: Tensor, scale_B1CHW: Tensor, shift_B1CHW: Tensor | None = None) -> Tensor:
    """x * scale + shift, with one scale and shift for all frames of a group; [B * 4, C, H, W] to the same shape."""
    x_BTCHW = x_NCHW.unflatten(0, (-1, GROUP))
    if shift_B1CHW is None:
        return (x_BTCHW * scale_B1CHW).flatten(0, 1)
    return torch.addcmul(shift_B1CHW, x_BTCHW, scale_B1CHW).flatten(0, 1)


@dataclass(slots=True, eq=False)
class Memory:
    """State of encoder or decoder, at fixed addresses; implements `engine.models.spec.CodecState`.

    Attributes:
        last_BCHW: the last frame or latent.
        started: bool tensor [] in host memory: whether there has been one.
    """

    last_BCHW: Tensor
    started: Tensor

    @classmethod
    def like(cls, weight: Tensor, *size: int) -> Memory:
        """A new state for tensors of this size, with the device and type of the weights."""
        return cls(weight.new_zeros(size), torch.zeros((), dtype=torch.bool))

    def reset(self) -> None:
        """Return to the state of a new stream."""
        self.last_BCHW.zero_()
        self.started.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that persists between calls, by name."""
        return {"last": self.last_BCHW, "started": self.started}


class EmberCodec(nn.Module):
    """The streaming autoencoder; implements `engine.models.spec.Codec`.

    A latent has picture channels first and `look` channels last. The encoder sets the look to zero; the network writes
    the style into it, and the decoder draws it. Each picture channel is centred and scaled (`mean`, `scale`): its size
    relative to the unit noise determines how much of the picture remains at a given noise level.

    Args:
        latent_channels: channels of a latent, the look included.
        look: look channels.
    """

    stride = STRIDE
    frames_per_latent = GROUP

    def __init__(self, latent_channels: int, look: int) -> None:
        super().__init__()
        self.latent_channels, self.look = latent_channels, look
        self.picture = latent_channels - look
        self.encoder, self.decoder = Encoder(self.picture), Decoder(self.picture, look)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(1, self.picture, 1, 1))
        self.register_buffer("scale", torch.ones(1, self.picture, 1, 1))
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Random convolutions; the corrections start at zero, so that only the linear maps have an effect at first."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(std=fan_in**-0.5, generator=generator)
                assert module.bias is not None
                module.bias.zero_()
        second = self.decoder.at_eighth[1]
        assert isinstance(second, Residual)
        for zeroed in (self.encoder.correction[-1], self.decoder.coarse_look[-1], second.second):
            zeroed.weight.zero_()
        last = self.decoder.last.weight
        last.mul_(0.1)
        last[:, self.decoder.width :].zero_()
        last[range(12), range(self.decoder.width, self.decoder.width + 12), 1, 1] = 1.0

    def encoder_state(self, batch: int, height: int, width: int) -> Memory:
        """A new state for encoding: it holds the last frame [B, 3, H, W]."""
        return Memory.like(self.encoder.linear.weight, batch, 3, height, width)

    def decoder_state(self, batch: int, height: int, width: int) -> Memory:
        """A new state for decoding: it holds the last latent [B, C, h, w]."""
        size = (batch, self.latent_channels, height // STRIDE, width // STRIDE)
        return Memory.like(self.decoder.linear.weight, *size)

    def encode(self, video_BCTHW: Tensor, state: Memory) -> Tensor:
        """Encode the next frames: 1 + 4n with a new state, 4n afterwards.

        Args:
            video_BCTHW: pixels in [-1, 1]; H and W multiples of 8.
            state: from `encoder_state`; it is updated.

        Returns:
            Latents [B, C, F, h, w], centred and scaled.
        """
        video = video_BCTHW.to(state.last_BCHW.dtype)
        latents = []
        if not state.started:
            first = video[:, :, 0]
            state.last_BCHW.copy_(first)
            state.started.fill_(True)
            latents.append(self.encode_group(first.repeat(1, GROUP, 1, 1), state.last_BCHW))
            video = video[:, :, 1:]
        for group in video.split(GROUP, dim=2) if video.shape[2] else ():
            latents.append(self.encode_group(rearrange(group, "b c t h w -> b (t c) h w"), state.last_BCHW))
            state.last_BCHW.copy_(group[:, :, -1])
        return torch.stack(latents, dim=2)

    def decode(self, latent_BCFhw: Tensor, state: Memory) -> Tensor:
        """Decode the next latent frames: the first one of a new state to 1 frame, each later one to 4.

        Returns:
            Pixels [B, 3, T, H, W], about in [-1, 1], not clamped.
        """
        frames = []
        for latent in latent_BCFhw.to(state.last_BCHW.dtype).unbind(2):
            first = not bool(state.started)
            if first:
                state.last_BCHW.copy_(latent)
                state.started.fill_(True)
            four = rearrange(self.decode_group(latent, state.last_BCHW), "b (t c) h w -> b c t h w", c=3)
            frames.append(four[:, :, -1:] if first else four)
            state.last_BCHW.copy_(latent)
        return torch.cat(frames, dim=2)

    def encode_group(self, group_BCHW: Tensor, before_BCHW: Tensor) -> Tensor:
        """Four frames stacked as channels [B, 12, H, W], after the frame `before`, to one latent frame [B, C, h, w]."""
        group, before = (x.contiguous(memory_format=torch.channels_last) for x in (group_BCHW, before_BCHW))
        picture = (self.encoder(group, before) - self.mean) * self.scale
        batch, _, height, width = picture.shape
        return torch.cat((picture, picture.new_zeros(batch, self.look, height, width)), 1)

    def decode_group(self, latent_BChw: Tensor, before_BChw: Tensor) -> Tensor:
        """One latent frame, after the latent `before`, to four frames stacked as channels [B, 12, H, W]."""
        picture, before = (
            (x[:, : self.picture] / self.scale + self.mean).contiguous(memory_format=torch.channels_last)
            for x in (latent_BChw, before_BChw)
        )
        look = latent_BChw[:, self.picture :].contiguous(memory_format=torch.channels_last)
        return self.decoder(picture, before, look)
