"""RMS normalisation, SiLU and the temporal window of the convolution that follows, in a single kernel.

On a GPU most of the autoencoder's memory traffic is here: with torch's own operations, a norm reads and writes every
activation, SiLU does the same, and two copies move the past frames into the window and out of it. The kernel in
`norm_silu_triton` reads each activation once and writes it once. `kernel_for` says where it works; elsewhere (on
Windows, without a C compiler) the layers use torch's operations.

Shape letters: N images (T * B, image t * B + b), B batch, C channels, H W sides, M positions of all images (N H W).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.runtime.device import tried_kernel

EPSILON = 1e-24
"""Added to mean squares, so that a picture without any signal is not divided by zero."""

PAST = 2
"""Past frames of a window: the kernel is for convolutions of three frames."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""A function of images [N, C, H, W], gamma [C], the layer's past [2 * B, C, H, W] and a window [2 * B + N, C, H, W],
all channels last. It writes the past and then SiLU(x / rms(x) * gamma) into the window, and the newest two frames of
the window into the past."""


@torch.library.custom_op(
    "tidecast::norm_silu",
    mutates_args=("past", "window"),
    schema="(Tensor x, Tensor gamma, Tensor(a!) past, Tensor(b!) window) -> ()",
)
def fused(x_NCHW: Tensor, gamma_C: Tensor, past_NCHW: Tensor, window_NCHW: Tensor) -> None:
    """A `Kernel` in Triton. It is an operation of torch, so that it can be counted on the device `meta`."""
    from engine.models.wan21 import norm_silu_triton  # needs Triton, which is not everywhere

    norm_silu_triton.launch(x_NCHW, gamma_C, past_NCHW, window_NCHW, EPSILON)


@fused.register_fake
def _(x_NCHW: Tensor, gamma_C: Tensor, past_NCHW: Tensor, window_NCHW: Tensor) -> None:
    return None


def plain(x_NCHW: Tensor, gamma_C: Tensor, past_NCHW: Tensor, window_NCHW: Tensor) -> None:
    """A `Kernel` of torch's operations; on a GPU they launch four kernels."""
    past = past_NCHW.shape[0]
    window_NCHW[:past].copy_(past_NCHW)
    norm_MC = F.rms_norm(rows(x_NCHW), gamma_C.shape, gamma_C, eps=EPSILON)
    torch.ops.aten.silu.out(norm_MC, out=rows(window_NCHW[past:]))
    past_NCHW.copy_(window_NCHW[-past:])


def rows(images_NCHW: Tensor) -> Tensor:
    """The positions of all images, which are channels last, as rows of a matrix [N H W, C]; no copy."""
    return images_NCHW.permute(0, 2, 3, 1).view(-1, images_NCHW.shape[1])


def kernel_for(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The fastest kernel that works here: `fused` on a GPU with Triton, if it gives the results of `plain`."""
    slower = "The autoencoder's norms take four kernels instead of one"
    return tried_kernel(fused, lambda: trial(fused, device, dtype), device, slower) or plain


def trial(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> str:
    """Why the kernel cannot be used; empty if it gives the results of `plain`."""
    generator = torch.Generator().manual_seed(1)
    found = []
    x, past = (torch.randn(count, 48, 3, 5, generator=generator) for count in (3, PAST))
    gamma = torch.randn(48, generator=generator).to(device, dtype)
    for function in (plain, kernel):
        own = [
            tensor.to(device, dtype).contiguous(memory_format=torch.channels_last)
            for tensor in (x, past, torch.zeros(PAST + 3, 48, 3, 5))
        ]
        try:
            function(own[0], gamma, own[1], own[2])
        except Exception as error:  # Triton raises whatever its compilers raise
            return f"Triton's kernel failed: {type(error).__name__}: {error}".splitlines()[0]
        found.append([tensor.float().cpu() for tensor in own])
    for wanted, got in zip(*found, strict=True):
        if not torch.allclose(wanted, got, rtol=2e-2, atol=2e-2):
            return "Triton's kernel gives wrong results."
    return ""
