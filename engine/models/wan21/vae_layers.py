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
from engine.models.wan21 import norm_silu


class CausalConv(nn.Module):
    """Causal 3-D convolution of a window with past and new frames, with a stride in time. Space is zero-padded."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: tuple[int, int, int] = (3, 3, 3), *, stride: int = 1
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.prepared: conv.TemporalConv | None = None

    @property
    def past(self) -> int:
        """Past frames that it needs before the new ones."""
        return int(self.weight.shape[2]) - 1

    def prepare(self) -> None:
        """Lay out the weights for inference; must be repeated after they or their device have changed."""
        self.prepared = conv.TemporalConv(self.weight, self.bias, self.stride)

    def forward(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """[(past + T) * batch, C, H, W] to [T / stride * batch, O, H, W], rounded up."""
        if self.prepared is None:
            raise ModelError("The autoencoder was used before prepare() was called.")
        return self.prepared(window_NCHW, batch)


def _rms_norm(x_NCHW: Tensor, gamma_C: Tensor) -> Tensor:
    """x / rms(x) * gamma, over channels; channels last, so that a GPU has one kernel for it."""
    return F.rms_norm(x_NCHW.permute(0, 2, 3, 1), gamma_C.shape, gamma_C, eps=norm_silu.EPSILON).permute(0, 3, 1, 2)


def _rms_norm_on_cpu(x_NCHW: Tensor, gamma_1C11: Tensor, out_NCHW: Tensor) -> None:
    """Write x / rms(x) * gamma, over channels, into `out_NCHW`. On a CPU this is faster than torch's RMS norm."""
    eps = max(1e-12, torch.finfo(x_NCHW.dtype).tiny)
    norm_N1HW = torch.linalg.vector_norm(x_NCHW, dim=1, keepdim=True).clamp_(min=eps)
    torch.mul(x_NCHW, norm_N1HW.reciprocal_(), out=out_NCHW)
    out_NCHW.mul_(gamma_1C11 * x_NCHW.shape[1] ** 0.5)


class NormSiLU(nn.Module):
    """RMS normalisation over channels, then SiLU, into the window of the convolution that follows.

    Attributes:
        kernel: what computes it on a GPU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, 1, 1, 1))
        self.kernel: norm_silu.Kernel = norm_silu.plain

    def forward(self, x_NCHW: Tensor, name: str, memory: CodecMemory) -> Tensor:
        """The window of the convolution `name`: its past and SiLU(norm(x)), of which it remembers the newest."""
        if conv.on_cpu(x_NCHW):
            window_NCHW, new_NCHW = memory.window(name, x_NCHW)
            _rms_norm_on_cpu(x_NCHW, self.gamma.view(1, -1, 1, 1), new_NCHW)
            F.silu(new_NCHW, inplace=True)
            memory.remember(name, window_NCHW)
        else:
            past_NCHW, window_NCHW = memory.buffers(name, x_NCHW)
            self.kernel(x_NCHW, self.gamma.flatten(), past_NCHW, window_NCHW)
        return window_NCHW


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
            window_NCHW = self.residual[norm](h_NCHW, f"{self.name}.residual.{convolution}", run.memory)
            h_NCHW = self.residual[convolution](window_NCHW, run.batch)
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
        if conv.on_cpu(x_NCHW):
            h_NCHW = torch.empty_like(x_NCHW)
            _rms_norm_on_cpu(x_NCHW, self.norm.gamma[None], h_NCHW)
        else:
            h_NCHW = _rms_norm(x_NCHW, self.norm.gamma.flatten())
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
        self.time_conv = CausalConv(channels, channels, (3, 1, 1), stride=2) if temporal else None

    def forward(self, x_NCHW: Tensor, run: Run) -> Tensor:
        """[T*B, C, H, W] to [T*B, C, H/2, W/2]; with `temporal`, T is halved too."""
        convolution = cast(nn.Conv2d, self.resample["1"])
        # The picture is padded with zeros at the bottom and on the right only. Padding it on all sides within the
        # convolution, and leaving out the first row and column, gives the same without a padded copy.
        x_NCHW = F.conv2d(x_NCHW, convolution.weight, convolution.bias, stride=2, padding=2)[:, :, 1:, 1:]
        if self.time_conv is None:
            return x_NCHW.contiguous(memory_format=torch.channels_last)
        if run.first:
            run.memory.remember(self.name, x_NCHW)
            return x_NCHW.contiguous(memory_format=torch.channels_last)
        window_NCHW, new_NCHW = run.memory.window(self.name, x_NCHW)
        new_NCHW.copy_(x_NCHW)
        run.memory.remember(self.name, window_NCHW)
        return self.time_conv(window_NCHW, run.batch)


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
            pair_NCHW = self.time_conv(window_NCHW, run.batch)
            x_NCHW = conv.split_frames(pair_NCHW, 2, run.batch)
        if self.prepared is None:
            raise ModelError("The autoencoder was used before prepare() was called.")
        return self.prepared(x_NCHW)
