"""Quantises the large linear layers of a network to 8-bit floating point while the weights are loaded, block by block.

Weights are stored as float8_e4m3 with one scale per output. Activations are quantised in every forward with one scale
per token (row-wise scaling, as in torchao and vLLM). The matmul runs on the GPU's 8-bit units; it accumulates and
returns wider numbers. Norms, embeddings, the head and the text's keys and values are not quantised.

Some builds of torch have no row-wise matmul: those for Windows have none, and Linux builds lack it for some GPUs. There
one scale serves a whole matrix (`Scaling.TENSOR`), which is less exact for tokens of small numbers. `scaling_for` tries
out which of the two works.

With torch's operations, quantising activations takes five kernels before each matmul. `compile = "full"` fuses them
with what comes before; without it, one kernel in Triton does it where that works (`kernel_for`). Elsewhere, as on
Windows, float8 saves memory rather than time: see docs/performance.md.

Shape letters: L tokens, I inputs, O outputs.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.network.protocol import LinearPlace, StreamingNetwork
from engine.runtime.device import tried_kernel

log = logging.getLogger(__name__)

FLOAT8_MAX = torch.finfo(torch.float8_e4m3fn).max
"""Largest finite number of float8_e4m3: 448."""

MIN_SCALE = 1e-12
"""Lower limit of a scale, so that rows of zeros do not divide by zero."""

MIN_CAPABILITY = (8, 9)
"""Lowest CUDA compute capability with 8-bit floating point matmuls (Ada)."""

REMEDY = 'Choose weights_dtype = "auto".'
"""What to do if float8 is not possible."""

WIDTH_MULTIPLE = 16
"""Inputs and outputs of an 8-bit linear layer must be multiples of this."""


class Scaling(enum.Enum):
    """What shares a scale: a row of a matrix, or all of it."""

    ROW = "row"
    TENSOR = "tensor"


Rows = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A function of a matrix [L, I] as `to_float8`, with a scale for each row."""


class Float8Linear(nn.Module):
    """A linear layer with 8-bit weights. Its tensors are not part of the state dict.

    Args:
        weight_OI: weights to quantise.
        bias_O: bias; it keeps its type.
        scaling: what shares a scale, in weights and activations.

    Attributes:
        rows: a kernel that quantises activations by rows; None for torch's operations.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor, scaling: Scaling = Scaling.ROW) -> None:
        super().__init__()
        self.scaling = scaling
        self.rows: Rows | None = None
        weight8_OI, scale_O1 = to_float8(weight_OI.detach(), scaling)
        self.register_buffer("weight8_OI", weight8_OI, persistent=False)
        self.register_buffer("scale_1O", scale_O1.T.contiguous(), persistent=False)
        self.register_buffer("bias_O", bias_O.detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], in the type of the bias."""
        weight8_OI, bias_O = cast(Tensor, self.weight8_OI), cast(Tensor, self.bias_O)
        x_LI = x.flatten(0, -2)
        if self.rows is None or torch.compiler.is_compiling():  # the compiler fuses torch's operations, not a kernel
            x8_LI, scale_L1 = to_float8(x_LI, self.scaling)
        else:
            x8_LI, scale_L1 = self.rows(x_LI)
        y_LO = torch._scaled_mm(
            x8_LI,
            weight8_OI.T,
            scale_a=scale_L1,
            scale_b=cast(Tensor, self.scale_1O),
            bias=bias_O,
            out_dtype=bias_O.dtype,
            use_fast_accum=x.is_cuda,
        )
        return y_LO.view(*x.shape[:-1], -1)


def to_float8(x_LI: Tensor, scaling: Scaling = Scaling.ROW) -> tuple[Tensor, Tensor]:
    """Quantise a matrix: float8_e4m3 [L, I], and scales (fp32 [L, 1], or [1, 1] for one scale).

    Their product approximates `x_LI`. No quotient needs clamping: the largest one is 448 to within fp32's rounding, and
    rounding to float8 takes that to 448.
    """
    rows = None if scaling is Scaling.TENSOR else 1
    largest = torch.linalg.vector_norm(x_LI, torch.inf, dim=rows, keepdim=True, dtype=torch.float32)
    scale_L1 = largest.div_(FLOAT8_MAX).clamp_(min=MIN_SCALE)
    return (x_LI / scale_L1).to(torch.float8_e4m3fn), scale_L1


@torch.library.custom_op("tidecast::quantise_rows", mutates_args=(), schema="(Tensor x) -> (Tensor, Tensor)")
def fused_rows(x_LI: Tensor) -> tuple[Tensor, Tensor]:
    """`Rows` in Triton. It is an operation of torch, so that it can be counted on the device `meta`."""
    from engine.runtime import quantise_triton  # needs Triton, which is not everywhere

    return quantise_triton.launch(x_LI, FLOAT8_MAX, MIN_SCALE)


@fused_rows.register_fake
def _(x_LI: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_LI, dtype=torch.float8_e4m3fn), x_LI.new_empty((x_LI.shape[0], 1), dtype=torch.float32)


def kernel_for(device: torch.device, dtype: torch.dtype) -> Rows | None:
    """`fused_rows` on a GPU with Triton, if it gives the results of `to_float8`; else None, and the log says why."""
    slower = "Each 8-bit matmul takes five more kernels instead of one"
    return tried_kernel(fused_rows, lambda: trial(fused_rows, device, dtype), device, slower)


def trial(rows: Rows, device: torch.device, dtype: torch.dtype) -> str:
    """Why the kernel cannot be used; empty if it gives the results of `to_float8`."""
    x_LI = torch.randn(3, 80, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    try:
        wanted, found = ((x8.float() * scale).cpu() for x8, scale in (to_float8(x_LI), rows(x_LI)))
    except Exception as error:  # Triton raises whatever its compilers raise
        return f"Triton's kernel failed: {type(error).__name__}: {error}".splitlines()[0]
    step = 2**-3  # of float8, relative to the number
    return "" if torch.allclose(found, wanted, rtol=step, atol=1e-6) else "Triton's kernel gives wrong results."


def scaling_for(device: torch.device, dtype: torch.dtype) -> Scaling:
    """The finest scaling with which 8-bit matmuls work here, found by trying a product of two 16x16 matrices.

    Raises:
        ModelError: if neither works.
    """
    reasons = []
    for scaling in Scaling:
        layer = Float8Linear(
            torch.ones(WIDTH_MULTIPLE, WIDTH_MULTIPLE, device=device, dtype=dtype),
            torch.zeros(WIDTH_MULTIPLE, device=device, dtype=dtype),
            scaling,
        )
        try:
            product = layer(torch.ones(WIDTH_MULTIPLE, WIDTH_MULTIPLE, device=device, dtype=dtype))
            if bool(((product - WIDTH_MULTIPLE).abs() < 0.5).all()):
                return scaling
            reasons.append(f"by {scaling.value}: wrong results")
        except (RuntimeError, ValueError) as error:  # torch raises either, by version
            log.info("8-bit matmuls with a scale for each %s do not work: %s", scaling.value, error)
            reasons.append(f"by {scaling.value}: {str(error).splitlines()[0]}")
    raise ModelError(f"8-bit matmuls do not work on {device} with this build of torch ({'; '.join(reasons)}).", REMEDY)


def check(device: torch.device, dtype: torch.dtype, *, devices: int = 1) -> None:
    """Check that 8-bit matmuls are possible, by trying one. On a CPU they work but are slow.

    Raises:
        ModelError: if the GPU is too old, there are several devices, the type of the network is not supported, or this
            build of torch has no kernel for the device.
    """
    if devices > 1:
        raise ModelError(f'weights_dtype = "float8" works on one device, but {devices} are configured.', REMEDY)
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise ModelError(f'weights_dtype = "float8" is not supported on {device.type}.', REMEDY)
    found = torch.cuda.get_device_capability(device)
    if found < MIN_CAPABILITY:
        raise ModelError(
            f"{torch.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}; 8-bit matmuls need "
            f"{MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]} (Ada, Hopper) or newer.",
            REMEDY,
        )
    if dtype is not torch.bfloat16:
        raise ModelError(
            f"On a GPU 8-bit matmuls return bfloat16, but the network runs in {str(dtype).removeprefix('torch.')}.",
            'Choose dtype = "bfloat16" or "auto".',
        )
    scaling_for(device, dtype)


@torch.no_grad()
def quantise(network: StreamingNetwork, device: torch.device | None = None) -> None:
    """Replace the network's large linear layers by 8-bit ones, one by one, freeing the original weights.

    Args:
        network: the network. If it is not on `device`, it is moved there block by block, so that the device never
            holds more than the 8-bit network and one block of the original one.
        device: where the network will run; None for where it is.

    Raises:
        ModelError: if the layers' widths do not fit, or the network has no such layers.
    """
    device = device or network.device
    scaling = Scaling.ROW if device.type == "meta" else scaling_for(device, network.dtype)
    if scaling is Scaling.TENSOR:
        log.warning("8-bit matmuls use one scale for a whole matrix here, which is less exact than one for each row.")
    rows = kernel_for(device, network.dtype) if scaling is Scaling.ROW else None
    blocks = network.blocks
    if not len(blocks):
        _check_widths([])
    for block in blocks:
        network.blocks = nn.ModuleList([block.to(device)])
        network.fuse()
        places = list(network.linears())
        _check_widths(places)
        for place in places:
            layer = place.layer
            small = Float8Linear(layer.weight, layer.bias, scaling)
            small.rows = rows
            place.replace(small)
    network.blocks = blocks
    network.to(device)


def _check_widths(places: Sequence[LinearPlace]) -> None:
    sides = sorted({side for place in places for side in place.layer.weight.shape})
    if not places or any(side % WIDTH_MULTIPLE for side in sides):
        found = f"not {', '.join(map(str, sides))}" if places else "but this network has none"
        raise ModelError(
            f"8-bit matmuls need linear layers whose widths are multiples of {WIDTH_MULTIPLE}, {found}.", REMEDY
        )
