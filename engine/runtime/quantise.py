"""Eight-bit floating point for the network's large matmuls, put in from outside after the weights are loaded.

Weights are held as float8_e4m3 with one scale per output; activations are rounded when they come, with one scale per
token (row-wise scaling, as in torchao and vLLM). The matmul runs on the GPU's 8-bit units, sums and results are wide.
Norms, embeddings, the head and the text's keys stay as they are. Must not know streams or files.

Shape letters: L tokens, I inputs, O outputs.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.network.protocol import StreamingNetwork

FLOAT8_MAX = torch.finfo(torch.float8_e4m3fn).max
"""Largest number of the type: 448."""

MIN_SCALE = 1e-12
"""Of rows that are all zero."""

MIN_CAPABILITY = (8, 9)
"""Least compute capability of a GPU with 8-bit floating point matmuls (Ada)."""

WIDTH_MULTIPLE = 16
"""What the sides of an 8-bit matmul must be multiples of."""


class Float8Linear(nn.Module):
    """A linear layer in 8 bits; stands where the wide one stood. Its tensors belong to no checkpoint.

    Args:
        weight_OI: wide weights.
        bias_O: wide bias.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor) -> None:
        super().__init__()
        weight8_OI, scale_O1 = to_float8(weight_OI.detach())
        self.register_buffer("weight8_OI", weight8_OI, persistent=False)
        self.register_buffer("scale_1O", scale_O1.T.contiguous(), persistent=False)
        self.register_buffer("bias_O", bias_O.detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], in the type of the bias."""
        weight8_OI, bias_O = cast(Tensor, self.weight8_OI), cast(Tensor, self.bias_O)
        x8_LI, scale_L1 = to_float8(x.flatten(0, -2))
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


def to_float8(x_LI: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in float8_e4m3, and the scale of each row (fp32 [L, 1]) that takes it back."""
    scale_L1 = x_LI.abs().amax(dim=1, keepdim=True).float().div(FLOAT8_MAX).clamp(min=MIN_SCALE)
    return (x_LI.float() / scale_L1).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn), scale_L1


def check(device: torch.device, dtype: torch.dtype, *, devices: int = 1) -> None:
    """Refuse where 8-bit matmuls cannot be had. On a CPU they work and are slow.

    Raises:
        ModelError: if the GPU is too old, there are several devices, or the network's type does not go with them.
    """
    remedy = 'Choose weights_dtype = "auto".'
    if devices > 1:
        raise ModelError(f'weights_dtype = "float8" is for one device, but {devices} were named.', remedy)
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise ModelError(f'weights_dtype = "float8" is not built for {device.type}.', remedy)
    found = torch.cuda.get_device_capability(device)
    if found < MIN_CAPABILITY:
        raise ModelError(
            f"{torch.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}; 8-bit matmuls need "
            f"{MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]} (Ada, Hopper) or newer.",
            remedy,
        )
    if dtype is not torch.bfloat16:
        raise ModelError(
            f"On a GPU 8-bit matmuls give bfloat16, but the network runs in {str(dtype).removeprefix('torch.')}.",
            'Choose dtype = "bfloat16" or "auto".',
        )


@torch.no_grad()
def quantise(network: StreamingNetwork) -> None:
    """Put 8-bit layers where the network's large linear layers are; the wide weights are given up one by one.

    Raises:
        ModelError: if the network is too narrow for them, or names none.
    """
    network.fuse()
    places = list(network.linears())
    sides = sorted({side for place in places for side in place.layer.weight.shape})
    if not places or any(side % WIDTH_MULTIPLE for side in sides):
        found = f"not {', '.join(map(str, sides))}" if places else "and this network has none"
        raise ModelError(
            f"8-bit matmuls need linear layers whose widths are multiples of {WIDTH_MULTIPLE}, {found}.",
            'Choose weights_dtype = "auto".',
        )
    for place in places:
        wide = place.layer
        place.replace(Float8Linear(wide.weight, wide.bias))
