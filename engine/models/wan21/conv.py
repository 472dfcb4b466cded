"""The convolutions of the video autoencoder, arranged to be fast. Arithmetic on tensors only: no state, no layers.

In float32 on a CPU two identities save multiplications. Where four output frames are wanted at once, the three
temporal taps of a 3x3x3 convolution are done by Toom-Cook's F(4, 3): six 2-D convolutions of mixed frames instead
of twelve, and F(2, 3) does two frames with four instead of six (Winograd 1980; Lavin and Gray, arXiv 1509.09308,
there along space, here along time). A 3x3 convolution after nearest doubling is four 2x2 convolutions of the
small picture, one per output phase: 16 products instead of 36. Elsewhere plain convolutions run.

Shape letters: N images (T * B, time-major), C input channels, O output channels, H W sides, K taps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# F(m, 3): outputs = AT ((G taps) * (BT inputs)), along time. Points 0, 1, -1, (2, -2,) infinity.
_F2 = (
    ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    ((1, 1, 1, 0), (0, 1, -1, -1)),
)
_F4 = (
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)
_NARROWEST = 64  # below this many channels the mixing costs more than the convolutions it saves


class _Tile:
    """One Toom-Cook transform with its transformed kernels."""

    def __init__(self, transform: tuple, weight_OCKHW: Tensor) -> None:
        self.inputs, taps, self.outputs = (weight_OCKHW.new_tensor(m) for m in transform)
        kernels = torch.einsum("mk,ockhw->mochw", taps, weight_OCKHW)
        self.kernels = [k.contiguous(memory_format=torch.channels_last) for k in kernels]
        self.frames = len(self.outputs)

    def __call__(self, window_NCHW: Tensor, batch: int, bias_O: Tensor) -> Tensor:
        """(frames + 2) * batch images to frames * batch."""
        mixed = _mix(self.inputs, window_NCHW)
        products = torch.cat(
            [
                F.conv2d(mixed[m * batch : (m + 1) * batch], kernel, bias_O if m == 1 else None, padding=1)
                for m, kernel in enumerate(self.kernels)
            ]
        )
        return _mix(self.outputs, products)


def _mix(matrix: Tensor, images_NCHW: Tensor) -> Tensor:
    """Linear combinations of frames: `matrix` [to, from] over the time axis of [from * B, C, H, W]."""
    flat = images_NCHW.permute(0, 2, 3, 1).reshape(matrix.shape[1], -1)
    _, c, height, width = images_NCHW.shape
    mixed = (matrix @ flat).view(-1, height, width, c)
    return mixed.permute(0, 3, 1, 2)


class TemporalConv:
    """A causal 3-D convolution of a window of frames, by whichever arithmetic suits the device and width.

    Args:
        weight_OCKHW: kernels; spatial sides are padded with zeros to keep the picture's size.
        bias_O: bias.
    """

    def __init__(self, weight_OCKHW: Tensor, bias_O: Tensor) -> None:
        self.bias_O = bias_O
        self.past = weight_OCKHW.shape[2] - 1
        self.padding = weight_OCKHW.shape[3] // 2
        self.on_host = weight_OCKHW.device.type == "cpu"
        self.weight_OCKHW = weight_OCKHW.contiguous(memory_format=torch.channels_last_3d)
        self.taps = [weight_OCKHW[:, :, k].contiguous(memory_format=torch.channels_last) for k in range(self.past + 1)]
        self.tiles: list[_Tile] = []
        wide = min(weight_OCKHW.shape[:2]) >= _NARROWEST
        if self.on_host and wide and weight_OCKHW.dtype == torch.float32 and weight_OCKHW.shape[2:] == (3, 3, 3):
            self.tiles = [_Tile(_F4, weight_OCKHW), _Tile(_F2, weight_OCKHW)]

    def __call__(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """[(past + T) * batch, C, H, W] to [T * batch, O, H, W], both channels last."""
        if not self.on_host:
            return self._volume(window_NCHW, batch)
        frames = window_NCHW.shape[0] // batch - self.past
        parts, start = [], 0
        while start < frames:
            tile = next((t for t in self.tiles if t.frames <= frames - start), None)
            count = tile.frames if tile else frames - start
            part = window_NCHW[start * batch : (start + count + self.past) * batch]
            parts.append(tile(part, batch, self.bias_O) if tile else self._by_taps(part, batch))
            start += count
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by_taps(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """One 2-D convolution per temporal tap, summed."""
        n = window_NCHW.shape[0] - self.past * batch
        y_NCHW = F.conv2d(window_NCHW[:n], self.taps[0], self.bias_O, padding=self.padding)
        for k, tap in enumerate(self.taps[1:], start=1):
            y_NCHW += F.conv2d(window_NCHW[k * batch : k * batch + n], tap, padding=self.padding)
        return y_NCHW

    def _volume(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """The 3-D convolution of the device's library."""
        volume_BCTHW = window_NCHW.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)
        y_BCTHW = F.conv3d(volume_BCTHW, self.weight_OCKHW, self.bias_O, padding=(0, self.padding, self.padding))
        y_NCHW = y_BCTHW.permute(2, 0, 1, 3, 4).flatten(0, 1)
        return y_NCHW.contiguous(memory_format=torch.channels_last)


class UpsampleConv:
    """Nearest doubling of both sides and a 3x3 convolution.

    Args:
        weight_OCHW: 3x3 kernels.
        bias_O: bias.
    """

    def __init__(self, weight_OCHW: Tensor, bias_O: Tensor) -> None:
        self.weight_OCHW = weight_OCHW.contiguous(memory_format=torch.channels_last)
        self.bias_O = bias_O
        self.phases: Tensor | None = None
        if weight_OCHW.device.type == "cpu" and weight_OCHW.dtype == torch.float32:
            # Output row 2i sees source rows i-1, i, i; row 2i+1 sees i, i, i+1: two taps each, the same for columns.
            even = weight_OCHW.new_tensor([[1, 0, 0], [0, 1, 1]])
            odd = weight_OCHW.new_tensor([[1, 1, 0], [0, 0, 1]])
            sides = torch.stack([even, odd])
            phases = torch.einsum("apy,bqx,ocyx->abocpq", sides, sides, weight_OCHW)
            self.phases = phases.flatten(0, 2).contiguous(memory_format=torch.channels_last)
            self.bias_4O = bias_O.repeat(4)

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """[N, C, H, W] to [N, O, 2H, 2W], channels last."""
        if self.phases is None:
            doubled = F.interpolate(x_NCHW, scale_factor=2, mode="nearest")
            return F.conv2d(doubled, self.weight_OCHW, self.bias_O, padding=1)
        n, _, height, width = x_NCHW.shape
        y_NCHW = F.conv2d(x_NCHW, self.phases, self.bias_4O, padding=1)
        y_NHWabO = y_NCHW.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
        out_NHaWbO = y_NCHW.new_empty(n, height, 2, width, 2, y_NHWabO.shape[-1])
        for a in (0, 1):
            for b in (0, 1):
                out_NHaWbO[:, :, a, :, b] = y_NHWabO[:, a : a + height, b : b + width, a, b]
        return out_NHaWbO.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def pointwise_taps(taps_NCHW: Sequence[Tensor], weight_OCK11: Tensor, bias_O: Tensor) -> Tensor:
    """A convolution over time alone: the sum over its taps of 1x1 convolutions.

    Args:
        taps_NCHW: for each tap, oldest first, the images that it reads.
        weight_OCK11: [O, C, K, 1, 1].
        bias_O: bias.

    Returns:
        [N, O, H, W].
    """
    y_NCHW = F.conv2d(taps_NCHW[0], weight_OCK11[:, :, 0], bias_O)
    for k, tap_NCHW in enumerate(taps_NCHW[1:], start=1):
        y_NCHW += F.conv2d(tap_NCHW, weight_OCK11[:, :, k])
    return y_NCHW
