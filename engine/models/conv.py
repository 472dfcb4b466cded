"""Fast convolutions for the video autoencoders.

Two identities save multiplications:

* In float32 on a CPU, the three temporal taps of a 3x3x3 convolution use the Toom-Cook algorithm: F(4, 3) computes four
  output frames with six 2-D convolutions of linear combinations of frames instead of twelve, F(2, 3) two frames with
  four instead of six (S. Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, arXiv 1509.09308,
  section 3, apply the same algorithms along the spatial axes).
* A 3x3 convolution after nearest-neighbour upsampling by 2 equals four 2x2 convolutions of the small picture, one per
  output phase: 16 products instead of 36. It is used in float32 on a CPU. On a GPU the same products are one transposed
  convolution, which neither writes nor reads the large picture.

Shape letters: N images (T * B, time-major), B batch, C input channels, O output channels, H W sides, k taps,
G frames that one image holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

_MIN_CHANNELS = 64  # with fewer channels the linear combinations cost more than the convolutions that they save

# Kernels of F(m, 3) as combinations of the three taps, for the interpolation points 0, 1, -1, (2, -2,) infinity.
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


def on_cpu(tensor: Tensor) -> bool:
    """Whether the autoencoders' layers use the algorithms for a CPU; tests replace it to run those for a GPU."""
    return tensor.device.type == "cpu"


class _TransformedKernels:
    """The six kernels of F(4, 3) or the four of F(2, 3), each for a 2-D convolution of one combination of frames."""

    def __init__(self, combinations: tuple[tuple[float, ...], ...], weight_OCkHW: Tensor, bias_O: Tensor) -> None:
        kernels = torch.einsum("mk,ockhw->mochw", weight_OCkHW.new_tensor(combinations), weight_OCkHW)
        self.kernels = [k.contiguous(memory_format=torch.channels_last) for k in kernels]
        self.bias_O = bias_O

    def __call__(self, m: int, frame_BCHW: Tensor) -> Tensor:
        """Convolve with kernel `m`. Kernel 1 adds the bias, since its result enters every output frame once."""
        return F.conv2d(frame_BCHW, self.kernels[m], self.bias_O if m == 1 else None, padding=1)


def _two_frames(conv: _TransformedKernels, window_NCHW: Tensor, out_NCHW: Tensor) -> None:
    """F(2, 3): two output frames, written to `out_NCHW`, from the four frames of `window_NCHW`."""
    x0, x1, x2, x3 = window_NCHW.chunk(4)
    y0, y1 = out_NCHW.chunk(2)
    at_1, at_minus_1 = conv(1, x1 + x2), conv(2, x2 - x1)
    torch.add(at_1, at_minus_1, out=y0).add_(conv(0, x0 - x2))
    torch.sub(at_1, at_minus_1, out=y1).sub_(conv(3, x1 - x3))


def _four_frames(conv: _TransformedKernels, window_NCHW: Tensor, out_NCHW: Tensor) -> None:
    """F(4, 3): four output frames, written to `out_NCHW`, from the six frames of `window_NCHW`."""
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
    """A causal 3-D convolution of a window of frames, with the algorithm that is fastest for the device and the widths.

    Space is padded with zeros so that the picture keeps its size.

    Args:
        weight_OCkHW: kernels.
        bias_O: bias.
        stride: stride in time.
    """

    def __init__(self, weight_OCkHW: Tensor, bias_O: Tensor, stride: int = 1) -> None:
        self.bias_O, self.stride = bias_O, stride
        self.past = weight_OCkHW.shape[2] - 1
        self.padding = weight_OCkHW.shape[3] // 2
        self.weight_OCkHW = weight_OCkHW.contiguous(memory_format=torch.channels_last_3d)
        self.taps: list[Tensor] = []
        self._toom_cook = False
        self._transformed: dict[int, _TransformedKernels] = {}
        if on_cpu(weight_OCkHW):
            self.weight_OCkHW = weight_OCkHW
            self.taps = [k.contiguous(memory_format=torch.channels_last) for k in weight_OCkHW.unbind(dim=2)]
            wide = min(weight_OCkHW.shape[:2]) >= _MIN_CHANNELS
            self._toom_cook = wide and weight_OCkHW.dtype == torch.float32 and weight_OCkHW.shape[2:] == (3, 3, 3)

    def __call__(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """[(past + T) * batch, C, H, W] to [T / stride * batch, O, H, W], rounded up; both channels last."""
        if not self.taps:
            if self.weight_OCkHW[0, 0].numel() == 1:
                return self._pointwise(window_NCHW)
            return self._volume(window_NCHW, batch)
        frames = window_NCHW.shape[0] // batch - self.past
        if not self._toom_cook or frames == 1:
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
                self._tile(count)(part, out)
            start += count
        return y_NCHW

    def _tile(self, frames: int) -> Callable[[Tensor, Tensor], None]:
        """The algorithm for 2 or 4 output frames; to save memory its kernels are computed at the first use."""
        if frames not in self._transformed:
            self._transformed[frames] = _TransformedKernels(_KERNELS[frames], self.weight_OCkHW, self.bias_O)
        return partial(_four_frames if frames == 4 else _two_frames, self._transformed[frames])

    def _by_taps(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """One 2-D convolution per temporal tap, summed."""
        window_TBCHW = window_NCHW.unflatten(0, (-1, batch))
        last = window_TBCHW.shape[0] - self.past
        read = [window_TBCHW[k : k + last : self.stride].flatten(0, 1) for k in range(len(self.taps))]
        y_NCHW = F.conv2d(read[0], self.taps[0], self.bias_O, padding=self.padding)
        for images, tap in zip(read[1:], self.taps[1:], strict=True):
            y_NCHW += F.conv2d(images, tap, padding=self.padding)
        return y_NCHW

    def _pointwise(self, images_NCHW: Tensor) -> Tensor:
        """A matmul: torch's convolutions would take a 1x1x1 kernel out of the layout channels last and back."""
        images_NHWC = images_NCHW.permute(0, 2, 3, 1)
        return F.linear(images_NHWC, self.weight_OCkHW.flatten(1), self.bias_O).permute(0, 3, 1, 2)

    def _volume(self, window_NCHW: Tensor, batch: int) -> Tensor:
        """One call of torch's 3-D convolution."""
        volume_BCTHW = window_NCHW.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)
        y_BCTHW = F.conv3d(
            volume_BCTHW,
            self.weight_OCkHW,
            self.bias_O,
            stride=(self.stride, 1, 1),
            padding=(0, self.padding, self.padding),
        )
        y_NCHW = y_BCTHW.permute(2, 0, 1, 3, 4).flatten(0, 1)
        return y_NCHW.contiguous(memory_format=torch.channels_last)


class UpsampleConv:
    """Nearest-neighbour upsampling by 2 along both sides, then a 3x3 convolution.

    Args:
        weight_OCHW: 3x3 kernels.
        bias_O: bias.
    """

    def __init__(self, weight_OCHW: Tensor, bias_O: Tensor) -> None:
        self.bias_O = bias_O
        self.phases: Tensor | None = None
        self.transposed: Tensor | None = None
        if not on_cpu(weight_OCHW):
            self.transposed = self._transposed(weight_OCHW)
            return
        self.weight_OCHW = weight_OCHW.contiguous(memory_format=torch.channels_last)
        if weight_OCHW.dtype == torch.float32:
            # Output row 2i reads source rows i-1, i, i; row 2i+1 reads i, i, i+1. Two taps each; the same for columns.
            even = weight_OCHW.new_tensor([[1, 0, 0], [0, 1, 1]])
            odd = weight_OCHW.new_tensor([[1, 1, 0], [0, 0, 1]])
            sides = torch.stack([even, odd])
            phases = torch.einsum("apy,bqx,ocyx->abocpq", sides, sides, weight_OCHW)
            self.phases = phases.flatten(0, 2).contiguous(memory_format=torch.channels_last)
            self.bias_4O = bias_O.repeat(4)

    @staticmethod
    def _transposed(weight_OCHW: Tensor) -> Tensor:
        """The 4x4 kernels [C, O, 4, 4] of the transposed convolution.

        Source row i enters output rows 2i-1 to 2i+2, by tap 2, taps 1 and 2, taps 0 and 1, and tap 0.
        """
        wide_OCHW = weight_OCHW.float()
        taps = wide_OCHW.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        kernels = torch.einsum("py,qx,ocyx->copq", taps, taps, wide_OCHW).to(weight_OCHW.dtype)
        return kernels.contiguous(memory_format=torch.channels_last)

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """[N, C, H, W] to [N, O, 2H, 2W], channels last."""
        if self.transposed is not None:
            return F.conv_transpose2d(x_NCHW, self.transposed, self.bias_O, stride=2, padding=1)
        if self.phases is None:
            doubled = F.interpolate(x_NCHW, scale_factor=2, mode="nearest")
            return F.conv2d(doubled, self.weight_OCHW, self.bias_O, padding=1)
        n, _, height, width = x_NCHW.shape
        y_NCHW = F.conv2d(x_NCHW, self.phases, self.bias_4O, padding=1)
        y_NHW22O = y_NCHW.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
        out_NH2W2O = y_NCHW.new_empty(n, height, 2, width, 2, y_NHW22O.shape[-1])
        for a in (0, 1):
            for b in (0, 1):
                out_NH2W2O[:, :, a, :, b] = y_NHW22O[:, a : a + height, b : b + width, a, b]
        return out_NH2W2O.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def split_frames(images_NCHW: Tensor, parts: int, batch: int) -> Tensor:
    """Frames whose channels hold several frames, earliest first, as single frames, channels last: one copy.

    Args:
        images_NCHW: [T * batch, parts * C, H, W], channels last.
        parts: frames in each.
        batch: images per point in time.

    Returns:
        [T * parts * batch, C, H, W].
    """
    parts_TBHWGC = images_NCHW.permute(0, 2, 3, 1).unflatten(-1, (parts, -1)).unflatten(0, (-1, batch))
    return parts_TBHWGC.permute(0, 4, 1, 2, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)
