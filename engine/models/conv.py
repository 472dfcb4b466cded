"""The convolutions of the video autoencoder, arranged to be fast. Arithmetic on tensors only: no state, no layers.

In float32 on a CPU two identities save multiplications. Where four output frames are wanted at once, the three
temporal taps of a 3x3x3 convolution are done by Toom-Cook's F(4, 3): six 2-D convolutions of mixed frames instead
of twelve, and F(2, 3) does two frames with four instead of six (Winograd 1980; Lavin and Gray, arXiv 1509.09308,
there along space, here along time). A 3x3 convolution after nearest doubling is four 2x2 convolutions of the
small picture, one per output phase: 16 products instead of 36. Elsewhere plain convolutions run.

Shape letters: N images (T * B, time-major), C input channels, O output channels, H W sides, k taps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

_NARROWEST = 64  # below this many channels the mixing costs more than the convolutions it saves

# Kernels of F(m, 3) from the three taps: Lagrange interpolation at the points 0, 1, -1, (2, -2,) infinity.
_KERNELS = {
    2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
}


class _Mixed:
    """The six (or four) kernels of F(4, 3) (or F(2, 3)), each a 2-D convolution of one mixed frame."""

    def __init__(self, mixture: tuple[tuple[float, ...], ...], weight_OCkHW: Tensor, bias_O: Tensor) -> None:
        kernels = torch.einsum("mk,ockhw->mochw", weight_OCkHW.new_tensor(mixture), weight_OCkHW)
        self.kernels = [k.contiguous(memory_format=torch.channels_last) for k in kernels]
        self.bias_O = bias_O

    def __call__(self, m: int, frame_BCHW: Tensor) -> Tensor:
        """Convolve with kernel `m`; the first of the kernels that reach every output also brings the bias."""
        return F.conv2d(frame_BCHW, self.kernels[m], self.bias_O if m == 1 else None, padding=1)


def _two_frames(conv: _Mixed, window_NCHW: Tensor, out_NCHW: Tensor) -> None:
    """F(2, 3): four frames of `window_NCHW` to two in `out_NCHW`, with four convolutions."""
    x0, x1, x2, x3 = window_NCHW.chunk(4)
    y0, y1 = out_NCHW.chunk(2)
    both, apart = conv(1, x1 + x2), conv(2, x2 - x1)
    torch.add(both, apart, out=y0).add_(conv(0, x0 - x2))
    torch.sub(both, apart, out=y1).sub_(conv(3, x1 - x3))


def _four_frames(conv: _Mixed, window_NCHW: Tensor, out_NCHW: Tensor) -> None:
    """F(4, 3): six frames of `window_NCHW` to four in `out_NCHW`, with six convolutions."""
    x0, x1, x2, x3, x4, x5 = window_NCHW.chunk(6)
    y0, y1, y2, y3 = out_NCHW.chunk(4)
    even, odd = torch.sub(x4, x2, alpha=4), torch.sub(x3, x1, alpha=4)
    at_1, at_minus_1 = conv(1, even + odd), conv(2, even - odd)
    even_1, odd_1 = torch.add(at_1, at_minus_1, out=y2), at_1.sub_(at_minus_1)
    torch.sub(x4, x2, out=even)
    torch.sub(x3, x1, out=odd)
    at_2, at_minus_2 = conv(3, torch.add(even, odd, alpha=2)), conv(4, torch.sub(even, odd, alpha=2))
    even_2, odd_2 = at_2 + at_minus_2, at_2.sub_(at_minus_2)
    torch.add(even_1, even_2, out=y0)
    torch.add(odd_1, odd_2, alpha=2, out=y1)
    y2.add_(even_2, alpha=4)
    torch.add(odd_1, odd_2, alpha=8, out=y3)
    y0.add_(conv(0, torch.sub(x0, x2).mul_(4).sub_(x2).add_(x4)))
    y3.add_(conv(5, torch.sub(x1, x3).mul_(4).sub_(x3).add_(x5)))


class TemporalConv:
    """A causal 3-D convolution of a window of frames, by whichever arithmetic suits the device and width.

    Args:
        weight_OCkHW: kernels; spatial sides are padded with zeros to keep the picture's size.
        bias_O: bias.
    """

    def __init__(self, weight_OCkHW: Tensor, bias_O: Tensor) -> None:
        self.bias_O = bias_O
        self.past = weight_OCkHW.shape[2] - 1
        self.padding = weight_OCkHW.shape[3] // 2
        self.weight_OCkHW = weight_OCkHW.contiguous(memory_format=torch.channels_last_3d)
        self.taps: list[Tensor] = []
        self.mixes = False
        self.mixed: dict[int, _Mixed] = {}
        if weight_OCkHW.device.type == "cpu":
            self.weight_OCkHW = weight_OCkHW
            self.taps = [k.contiguous(memory_format=torch.channels_last) for k in weight_OCkHW.unbind(dim=2)]
            wide = min(weight_OCkHW.shape[:2]) >= _NARROWEST
            self.mixes = wide and weight_OCkHW.dtype == torch.float32 and weight_OCkHW.shape[2:] == (3, 3, 3)

    def __call__(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """[(past + T) * batch, C, H, W] to [T * batch, O, H, W], both channels last."""
        if not self.taps:
            return self._volume(window_NCHW, batch)
        frames = window_NCHW.shape[0] // batch - self.past
        if not self.mixes or frames == 1:
            return self._by_taps(window_NCHW, batch)
        n, o, (height, width) = frames * batch, self.weight_OCkHW.shape[0], window_NCHW.shape[2:]
        y_NCHW = window_NCHW.new_empty(n, height, width, o).permute(0, 3, 1, 2)
        start = 0
        while start < frames:
            count = next((m for m in (4, 2) if m <= frames - start), 1)
            part = window_NCHW[start * batch : (start + count + self.past) * batch]
            out = y_NCHW[start * batch : (start + count) * batch]
            if count == 1:
                out.copy_(self._by_taps(part, batch))
            else:
                self._mixing(count)(part, out)
            start += count
        return y_NCHW

    def _mixing(self, frames: int) -> Callable[[Tensor, Tensor], None]:
        """The tile for this many frames; its kernels are made when it is first needed (they take memory)."""
        if frames not in self.mixed:
            self.mixed[frames] = _Mixed(_KERNELS[frames], self.weight_OCkHW, self.bias_O)
        return partial(_four_frames if frames == 4 else _two_frames, self.mixed[frames])

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
        y_BCTHW = F.conv3d(volume_BCTHW, self.weight_OCkHW, self.bias_O, padding=(0, self.padding, self.padding))
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


def pointwise_taps(taps_NCHW: Sequence[Tensor], weight_OCk11: Tensor, bias_O: Tensor) -> Tensor:
    """A convolution over time alone: the sum over its taps of 1x1 convolutions.

    Args:
        taps_NCHW: for each tap, oldest first, the images that it reads.
        weight_OCk11: [O, C, K, 1, 1].
        bias_O: bias.

    Returns:
        [N, O, H, W].
    """
    y_NCHW = F.conv2d(taps_NCHW[0], weight_OCk11[:, :, 0], bias_O)
    for k, tap_NCHW in enumerate(taps_NCHW[1:], start=1):
        y_NCHW += F.conv2d(tap_NCHW, weight_OCk11[:, :, k])
    return y_NCHW
