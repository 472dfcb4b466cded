"""The network that finds people: MediaPipe's selfie segmentation (landscape), layer by layer.

An encoder of MobileNetV3's blocks (Howard et al., "Searching for MobileNetV3", 2019) down to a 16th of the size, and a
decoder that brings every earlier size back in, weighted by channel. 106,401 numbers.

Shape letters: N images, C channels, H W sides.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding SAME: at stride 2, odd numbers of rows and columns are added more at the
    right and below than at the left and above."""

    def __init__(self, channels: int, width: int, side: int = 1, stride: int = 1, *, depthwise: bool = False) -> None:
        uneven = stride == 2
        super().__init__(channels, width, side, stride, 0 if uneven else side // 2, groups=channels if depthwise else 1)
        before = (side - 2) // 2
        self._pad = (before, side - 2 - before) * 2 if uneven else None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """At stride 2, half of the sides, which must be even."""
        return super().forward(x_NCHW if self._pad is None else F.pad(x_NCHW, self._pad))


class Gate(nn.Module):
    """One factor for each channel, from the mean over the picture."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Factors 0..1, [N, C, 1, 1]."""
        mean_NC11 = x_NCHW.mean((2, 3), keepdim=True)
        return self.expand(F.relu(self.squeeze(mean_NC11))).sigmoid()


class Bottleneck(nn.Module):
    """A block of the encoder: to more channels, a convolution of each channel for itself, back to few channels.

    Args:
        channels, hidden, width: channels before, in and after it.
        side, stride: of the convolution of each channel.
        gate: hidden width of the gate; 0 for none.
        hard: hard-swish instead of ReLU.
    """

    def __init__(
        self, channels: int, hidden: int, width: int, side: int, stride: int, gate: int, *, hard: bool
    ) -> None:
        super().__init__()
        self.expand = SameConv(channels, hidden)
        self.depthwise = SameConv(hidden, hidden, side, stride, depthwise=True)
        self.gate = Gate(hidden, gate) if gate else None
        self.project = SameConv(hidden, width)
        self._activate = F.hardswish if hard else F.relu
        self._residual = stride == 1 and channels == width

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """At stride 2, half of the sides."""
        y_NCHW = self._activate(self.depthwise(self._activate(self.expand(x_NCHW))))
        if self.gate is not None:
            y_NCHW = y_NCHW * self.gate(y_NCHW)
        y_NCHW = self.project(y_NCHW)
        return y_NCHW + x_NCHW if self._residual else y_NCHW


class Head(nn.Module):
    """The smallest size, weighted by what is in the whole picture."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.features = SameConv(channels, width)
        self.weights = nn.Conv2d(channels, width, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The same sides."""
        mean_NC11 = x_NCHW.mean((2, 3), keepdim=True)
        return F.relu(self.features(x_NCHW)) * self.weights(mean_NC11).sigmoid()


class Merge(nn.Module):
    """A block of the decoder: twice the size, joined with the encoder's picture of that size."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project = SameConv(channels, width)
        self.gate = Gate(width, width)
        self.mix = SameConv(width, width)
        self.depthwise = SameConv(width, width, 3, depthwise=True)

    def forward(self, x_NCHW: Tensor, skip_NCHW: Tensor) -> Tensor:
        """The size and the channels of `skip_NCHW`."""
        x_NCHW = F.interpolate(x_NCHW, scale_factor=2.0, mode="bilinear", align_corners=False)
        x_NCHW = self.project(x_NCHW)
        x_NCHW = skip_NCHW * self.gate(skip_NCHW + x_NCHW) + x_NCHW
        x_NCHW = F.relu(self.mix(x_NCHW))
        return x_NCHW + F.relu(self.depthwise(x_NCHW))


class SelfieNetwork(nn.Module):
    """Finds people. The modules are in the order in which they are computed, which `convert` relies on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 16, 3, 2)
        self.encoder = nn.ModuleList(
            (
                Bottleneck(16, 16, 16, 3, 2, 8, hard=False),
                Bottleneck(16, 72, 24, 3, 2, 0, hard=False),
                Bottleneck(24, 88, 24, 3, 1, 0, hard=False),
                Bottleneck(24, 96, 32, 5, 2, 24, hard=True),
                Bottleneck(32, 128, 32, 5, 1, 32, hard=True),
                Bottleneck(32, 128, 32, 5, 1, 32, hard=True),
                Bottleneck(32, 96, 32, 5, 1, 24, hard=True),
                Bottleneck(32, 96, 32, 5, 1, 24, hard=True),
            )
        )
        self.head = Head(32, 128)
        self.decoder = nn.ModuleList((Merge(128, 24), Merge(24, 16), Merge(16, 16)))
        self.last = nn.ConvTranspose2d(16, 1, 2, 2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The probability that a pixel belongs to a person.

        Args:
            x_NCHW: red, green and blue, 0..1; sides are multiples of 16. It was trained for 256x144.

        Returns:
            0..1, [N, 1, H, W].
        """
        levels = [F.hardswish(self.stem(x_NCHW))]
        for block in self.encoder:
            levels.append(block(levels[-1]))
        # The last of every size: the levels before each one that is smaller.
        skips = [one for one, after in pairwise(levels) if after.shape[2] < one.shape[2]]
        y_NCHW = self.head(levels[-1])
        for block, skip_NCHW in zip(self.decoder, reversed(skips), strict=True):
            y_NCHW = block(y_NCHW, skip_NCHW)
        return torch.sigmoid(self.last(y_NCHW))
