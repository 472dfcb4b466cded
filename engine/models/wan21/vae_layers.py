"""Layers of Wan2.1's causal video autoencoder. Parameter names are those of `Wan2.1_VAE.pth`.

Activations are time-major: N = T * B images, image t * B + b, each channels last, so that consecutive frames are
contiguous in memory and most layers are plain 2-D convolutions over all frames at once. A `CodecMemory` holds the past
frames that a layer needs (two for a temporal convolution, one for a temporal downsampling).

Shape letters: N images (T * B), C channels, H W height and width, O output channels, k temporal taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models import conv
from engine.models.codec_memory import CodecMemory


class CausalConv(nn.Module):
    """Causal 3-D convolution of a window with past and new frames. Space is padded with zeros."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.prepared: conv.TemporalConv | None = None

    @property
    def past(self) -> int:
        """Past frames that it needs before the new ones."""
        return int(self.weight.shape[2]) - 1

    def prepare(self) -> None:
        """Lay out the weights for inference; must be repeated after they or their device have changed."""
        self.prepared = conv.TemporalConv(self.weight, self.bias)

    def forward(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """[(past + T) * batch, C, H, W] to [T * batch, O, H, W]."""
        if self.prepared is None:
            raise ModelError("The autoencoder was used before prepare() was called.")
        return self.prepared(window_NCHW, batch)


class NormSiLU(nn.Module):
    """RMS normalisation over channels, then SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, 1, 1, 1))

    def forward(self, x_NCHW: Tensor, out_NCHW: Tensor) -> None:
        """Write SiLU(norm(x)) into `out_NCHW`."""
        _rms_norm(x_NCHW, self.gamma.view(1, -1, 1, 1), out_NCHW)
        F.silu(out_NCHW, inplace=True)


def _rms_norm(x_NCHW: Tensor, gamma_1C11: Tensor, out_NCHW: Tensor) -> None:
    """Write x / rms(x) * gamma, over channels, into `out_NCHW`."""
    eps = max(1e-12, torch.finfo(x_NCHW.dtype).tiny)
    norm_N1HW = torch.linalg.vector_norm(x_NCHW, dim=1, keepdim=True).clamp_(min=eps)
    torch.mul(x_NCHW, norm_N1HW.reciprocal_(), out=out_NCHW)
    out_NCHW.mul_(gamma_1C11 * x_NCHW.shape[1] ** 0.5)


@dataclass(frozen=True, slots=True)
class Run:
    """One forward pass of encoder or decoder.

    Attributes:
        memory: the state.
        batch: B.
        first: whether these are the stream's first frames.
    """

    memory: CodecMemory
    batch: int
    first: bool


class ResidualBlock(nn.Module):
    """Residual block: twice norm, SiLU and convolution, plus a shortcut."""

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

    def forward(self, x_NCHW: Tensor, run: Run) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, H, W]."""
        h_NCHW = x_NCHW
        for norm, convolution in (("0", "2"), ("3", "6")):
            name = f"{self.name}.residual.{convolution}"
            window_NCHW, new_NCHW = run.memory.window(name, h_NCHW)
            self.residual[norm](h_NCHW, new_NCHW)
            h_NCHW = self.residual[convolution](window_NCHW, run.batch)
            run.memory.remember(name, window_NCHW)
        return h_NCHW.add_(x_NCHW if self.shortcut is None else self.shortcut(x_NCHW, run.batch))


class Attention(nn.Module):
    """Self-attention over the positions of each image, with one head."""

    class _Gain(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.empty(channels, 1, 1))

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = self._Gain(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_NCHW: Tensor, run: Run) -> Tensor:
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
    """Downsampling by 2 in space and, with `temporal`, in time. The stream's first frame is not merged with others."""

    def __init__(self, name: str, channels: int, temporal: bool) -> None:
        super().__init__()
        self.name = f"{name}.time_conv"
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2)})
        self.time_conv = CausalConv(channels, channels, (3, 1, 1)) if temporal else None

    def forward(self, x_NCHW: Tensor, run: Run) -> Tensor:
        """[T*B, C, H, W] to [T*B, C, H/2, W/2]; with `temporal`, T is halved too."""
        x_NCHW = self.resample["1"](F.pad(x_NCHW, (0, 1, 0, 1)))
        if self.time_conv is None:
            return x_NCHW
        if run.first:
            run.memory.remember(self.name, x_NCHW)
            return x_NCHW
        window_NCHW, new_NCHW = run.memory.window(self.name, x_NCHW)
        new_NCHW.copy_(x_NCHW)
        run.memory.remember(self.name, window_NCHW)
        window_TBCHW = window_NCHW.unflatten(0, (-1, run.batch))
        taps = [window_TBCHW[k : k - 2 or None : 2].flatten(0, 1) for k in range(3)]
        return conv.pointwise_taps(taps, self.time_conv.weight, self.time_conv.bias)


class Upsample(nn.Module):
    """Upsampling by 2 in space (nearest, then a convolution to half the width) and, with `temporal`, in time."""

    def __init__(self, name: str, channels: int, temporal: bool) -> None:
        super().__init__()
        self.name = f"{name}.time_conv"
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels // 2, 3, padding=1)})
        self.time_conv = CausalConv(channels, 2 * channels, (3, 1, 1)) if temporal else None
        self.prepared: conv.UpsampleConv | None = None

    def prepare(self) -> None:
        """Lay out the weights for inference; must be repeated after they or their device have changed."""
        convolution = cast(nn.Conv2d, self.resample["1"])
        self.prepared = conv.UpsampleConv(convolution.weight, cast(Tensor, convolution.bias))

    def forward(self, x_NCHW: Tensor, run: Run) -> Tensor:
        """[T*B, C, H, W] to [T*B, C/2, 2H, 2W]; with `temporal`, T is doubled, except for the stream's first frame."""
        if self.time_conv is not None and not run.first:
            window_NCHW, new_NCHW = run.memory.window(self.name, x_NCHW)
            new_NCHW.copy_(x_NCHW)
            run.memory.remember(self.name, window_NCHW)
            n = x_NCHW.shape[0]
            taps = [window_NCHW[k * run.batch : k * run.batch + n] for k in range(3)]
            pair_NCHW = conv.pointwise_taps(taps, self.time_conv.weight, self.time_conv.bias)
            pair_TBCHW = pair_NCHW.unflatten(0, (-1, run.batch))
            x_NCHW = torch.stack(pair_TBCHW.chunk(2, dim=2), dim=1).flatten(0, 2)
        if self.prepared is None:
            raise ModelError("The autoencoder was used before prepare() was called.")
        return self.prepared(x_NCHW.contiguous(memory_format=torch.channels_last))
