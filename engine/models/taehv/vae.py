"""TAEHV and LightTAE, tiny video autoencoders for Wan2.1's latents, as a streaming encoder and decoder with state.

All layers are 2-D convolutions. Each `MemoryBlock` also reads its own input of the previous frame, which is all the
state there is. Parameter names are those of `taew2_1.pth` and `lighttaew2_1.pth`.

The 1x1 convolutions that merge or split frames are folded into the 3x3 convolutions that follow, since both are linear
with nothing in between. In the decoder an upsampling comes before the 1x1 convolution, with which it commutes.

Shape letters: N images (T * B, time-major), B batch, C channels, F latent frames, G frames that are merged into one or
made of one, H W sides, O output channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models import conv
from engine.models.codec_memory import CodecMemory, CodecStates, to_images, to_video
from engine.models.wan21.vae_shape import VAEShape


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Sizes of the tiny autoencoder.

    Attributes:
        latent: channels of a latent.
        encoder: the encoder's channels, at every resolution.
        decoder: the decoder's channels at each resolution, from the latent's up.
        blocks: memory blocks per resolution.
        grow: factor on the number of frames at each of the decoder's upsamplings; the encoder mirrors it.
    """

    latent: int = 16
    encoder: int = 64
    decoder: tuple[int, int, int, int] = (256, 128, 64, 64)
    blocks: int = 3
    grow: tuple[int, int, int] = (1, 2, 2)


def _conv(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


class _Pointwise(nn.Module):
    """Weights of a 1x1 convolution without bias that is folded into the next layer."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)


class MemoryBlock(nn.Module):
    """Residual block of three convolutions; the first one also reads the block's input of the previous frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.ModuleDict({"0": _conv(2 * width, width), "2": _conv(width, width), "4": _conv(width, width)})
        self._first: conv.TemporalConv | None = None

    def prepare(self) -> None:
        """Lay out the weights for inference: the input channels of the past and the present frame become two taps."""
        first = cast(nn.Conv2d, self.conv["0"])
        present_OCHW, past_OCHW = first.weight.chunk(2, dim=1)
        self._first = conv.TemporalConv(torch.stack([past_OCHW, present_OCHW], dim=2), cast(Tensor, first.bias))

    def forward(self, x_NCHW: Tensor, name: str, memory: CodecMemory, batch: int) -> Tensor:
        """Same shape."""
        if self._first is None:
            raise ModelError("The autoencoder was used before prepare() was called.")
        window_NCHW, new_NCHW = memory.window(name, x_NCHW)
        new_NCHW.copy_(x_NCHW)
        memory.remember(name, x_NCHW)
        h_NCHW = F.relu_(self._first(window_NCHW, batch))
        h_NCHW = self.conv["4"](F.relu_(self.conv["2"](h_NCHW)))
        return F.relu_(h_NCHW.add_(x_NCHW))


class TinyEncoder(nn.ModuleDict):
    """Pixels in [0, 1] to latents; four frames become one."""

    def __init__(self, shape: TinyShape) -> None:
        layers: list[nn.Module | None] = [_conv(3, shape.encoder), None]
        pools: dict[int, int] = {}
        for pool in reversed(shape.grow):
            pools[len(layers)] = pool
            layers.append(_Pointwise(shape.encoder * pool, shape.encoder))
            layers.append(nn.Conv2d(shape.encoder, shape.encoder, 3, stride=2, padding=1, bias=False))
            layers.extend(MemoryBlock(shape.encoder) for _ in range(shape.blocks))
        layers.append(_conv(shape.encoder, shape.latent))
        super().__init__({str(i): layer for i, layer in enumerate(layers) if layer is not None})
        self._pools, self._last = pools, str(len(layers) - 1)
        self._kernels: dict[int, list[Tensor]] = {}

    def prepare(self) -> None:
        """Lay out the weights for inference: fold each merging of frames into the convolution that follows."""
        for index, pool in self._pools.items():
            pointwise_OC = cast(_Pointwise, self[str(index)]).conv.weight[:, :, 0, 0]
            conv_OCHW = cast(nn.Conv2d, self[str(index + 1)]).weight
            folded_OCHW = torch.einsum("omyx,mc->ocyx", conv_OCHW, pointwise_OC)
            self._kernels[index] = [
                k.contiguous(memory_format=torch.channels_last) for k in folded_OCHW.chunk(pool, dim=1)
            ]

    def forward(self, x_NCHW: Tensor, memory: CodecMemory, batch: int) -> Tensor:
        """[4F * B, 3, H, W] to [F * B, latent, h, w]."""
        x_NCHW = F.relu_(self["0"](x_NCHW))
        for key, layer in self.items():
            if isinstance(layer, MemoryBlock):
                x_NCHW = layer(x_NCHW, f"encoder.{key}", memory, batch)
            elif isinstance(layer, _Pointwise):
                kernels = self._kernels[int(key)]
                groups_TGBCHW = x_NCHW.unflatten(0, (-1, len(kernels), batch))
                parts = [
                    F.conv2d(groups_TGBCHW[:, p].flatten(0, 1), kernel, stride=2, padding=1)
                    for p, kernel in enumerate(kernels)
                ]
                x_NCHW = sum(parts[1:], start=parts[0])
        return self[self._last](x_NCHW)


class TinyDecoder(nn.ModuleDict):
    """Latents to pixels; one latent frame becomes four."""

    def __init__(self, shape: TinyShape) -> None:
        widths = shape.decoder
        layers: list[nn.Module | None] = [None, _conv(shape.latent, widths[0]), None]
        grows: dict[int, int] = {}
        for level, grow in enumerate(shape.grow):
            layers.extend(MemoryBlock(widths[level]) for _ in range(shape.blocks))
            layers.append(None)
            grows[len(layers)] = grow
            layers.append(_Pointwise(widths[level], widths[level] * grow))
            layers.append(_conv(widths[level], widths[level + 1], bias=False))
        layers += [None, _conv(widths[-1], 3)]
        super().__init__({str(i): layer for i, layer in enumerate(layers) if layer is not None})
        self._grows, self._last = grows, str(len(layers) - 1)
        self._upsamples: dict[int, conv.UpsampleConv] = {}

    def prepare(self) -> None:
        """Lay out the weights for inference: fold each splitting of frames into the convolution that follows."""
        for index, grow in self._grows.items():
            conv_OCHW = cast(nn.Conv2d, self[str(index + 1)]).weight
            pointwise = cast(_Pointwise, self[str(index)])
            pointwise_GOC = pointwise.conv.weight[:, :, 0, 0].unflatten(0, (grow, -1))
            folded_OCHW = torch.einsum("omyx,gmc->gocyx", conv_OCHW, pointwise_GOC).flatten(0, 1)
            self._upsamples[index] = conv.UpsampleConv(folded_OCHW, conv_OCHW.new_zeros(len(folded_OCHW)))

    def forward(self, z_NCHW: Tensor, memory: CodecMemory, batch: int) -> Tensor:
        """[F * B, latent, h, w] to [4F * B, 3, H, W] in [0, 1]; the first 3 frames of a stream are to be dropped."""
        x_NCHW = F.relu_(self["1"](torch.tanh(z_NCHW / 3) * 3))
        for key, layer in self.items():
            if isinstance(layer, MemoryBlock):
                x_NCHW = layer(x_NCHW, f"decoder.{key}", memory, batch)
            elif isinstance(layer, _Pointwise):
                x_NCHW = conv.split_frames(self._upsamples[int(key)](x_NCHW), self._grows[int(key)], batch)
        return self[self._last](F.relu_(x_NCHW)).clamp_(0, 1)


class TinyVAE(nn.Module):
    """The weights of encoder and decoder, with the names of the released checkpoints."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = TinyEncoder(shape)
        self.decoder = TinyDecoder(shape)

    def trimmed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors; of layers that split into more frames than here, only the last frames' weights."""
        found = dict(tensors)
        for key, own in self.state_dict().items():
            if key.startswith("decoder.") and own.shape[2:] == (1, 1) and key in found:
                found[key] = found[key][-own.shape[0] :]
        return found


class TinyCodec(CodecStates):
    """Streams pictures through a `TinyVAE`; implements `engine.models.spec.Codec`.

    The encoder was trained to look ahead by three frames. A live stream cannot, so it starts with three copies of the
    first frame, and latents lag behind the newest input by `lag` = 3 frames.

    Args:
        network: the weights.
        raw_latents: whether the weights work on un-normalised latents (LightTAE); otherwise on normalised ones (TAEHV).
        normalised: whether encoding returns normalised latents; decoding always takes normalised ones.
        latents: mean and standard deviation of Wan's latents; None for those of Wan2.1.
    """

    lag = 3

    def __init__(
        self,
        network: TinyVAE,
        *,
        raw_latents: bool = False,
        normalised: bool = False,
        latents: VAEShape | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.raw_latents, self.normalised = raw_latents, normalised
        self.latent_channels = network.shape.latent
        self.stride = 2 ** len(network.shape.grow)
        self.frames_per_latent = 1
        for grow in network.shape.grow:
            self.frames_per_latent *= grow
        statistics = latents or VAEShape()
        self._weight = cast(nn.Conv2d, network.encoder["0"]).weight
        self._mean_1C11 = self._weight.new_tensor(statistics.mean).view(1, -1, 1, 1)
        self._std_1C11 = self._weight.new_tensor(statistics.std).view(1, -1, 1, 1)
        for module in network.modules():
            if isinstance(module, MemoryBlock | TinyEncoder | TinyDecoder):
                module.prepare()

    def _new_memory(self, side: str, batch: int, height: int, width: int) -> CodecMemory:
        memory = {}
        shrink = 1 if side == "encoder" else self.stride
        for key, layer in getattr(self.network, side).items():
            if isinstance(layer, _Pointwise):
                shrink = shrink * 2 if side == "encoder" else shrink // 2
            elif isinstance(layer, MemoryBlock):
                shape = (batch, layer.width, height // shrink, width // shrink)
                memory[f"{side}.{key}"] = self._weight.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        return CodecMemory(memory)

    @torch.no_grad()
    def encode(self, video_BCTHW: Tensor, state: CodecMemory) -> Tensor:
        """Encode the next frames of [B, 3, T, H, W] in [-1, 1] to latents [B, C, F, h, w].

        Raises:
            ModelError: if the number of frames is not 1 + 4n for a new state, or 4n for a running one.
        """
        frames, first = video_BCTHW.shape[2], 0 if int(state.started) else 1
        if frames < 1 or (frames - first) % self.frames_per_latent:
            raise ModelError(
                f"{frames} frames were given, but the encoder takes "
                f"{'1 + ' if first else ''}a multiple of {self.frames_per_latent}."
            )
        batch = video_BCTHW.shape[0]
        x_NCHW = to_images((video_BCTHW.to(self._weight.dtype) + 1) / 2)
        if first:
            x_NCHW = torch.cat([x_NCHW[:batch]] * self.lag + [x_NCHW])
            x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
        z_NCHW = self.network.encoder(x_NCHW, state, batch)
        state.started.fill_(1)
        if self.normalised and self.raw_latents:
            z_NCHW = (z_NCHW - self._mean_1C11) / self._std_1C11
        elif not self.normalised and not self.raw_latents:
            z_NCHW = z_NCHW * self._std_1C11 + self._mean_1C11
        return to_video(z_NCHW, batch)

    @torch.no_grad()
    def decode(self, latent_BCFhw: Tensor, state: CodecMemory) -> Tensor:
        """Decode the next normalised latents [B, C, F, h, w] to pixels [B, 3, T, H, W] in [-1, 1].

        The first latent frame of a new state becomes 1 frame, each later one 4.
        """
        batch = latent_BCFhw.shape[0]
        z_NCHW = to_images(latent_BCFhw.to(self._weight.dtype))
        if self.raw_latents:
            z_NCHW = z_NCHW * self._std_1C11 + self._mean_1C11
        x_NCHW = self.network.decoder(z_NCHW, state, batch)
        if not int(state.started):
            x_NCHW = x_NCHW[(self.frames_per_latent - 1) * batch :]
        state.started.fill_(1)
        return to_video(x_NCHW * 2 - 1, batch)
