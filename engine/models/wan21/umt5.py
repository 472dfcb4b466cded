"""The UMT5 text encoder with Wan's checkpoints: its network comes from transformers, its sizes from the file.

Also the ways to hold it: 8-bit weights, and weights that visit the device block by block. Knows neither prompts nor
caches; transformers (the optional extra `wan`) is imported when an encoder is made.

Shape letters: B batch, X tokens, E width of the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models.wan21 import checkpoint

NAMES = (
    (r"token_embedding\.", "shared."),
    (r"blocks\.(\d+)\.attn\.", r"encoder.block.\1.layer.0.SelfAttention."),
    (r"blocks\.(\d+)\.pos_embedding\.embedding\.", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
    (r"norm\.", "encoder.final_layer_norm."),
)
"""Wan's names (as regular expressions) and what transformers calls them."""


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under transformers' names; those that already bear them stay."""
    found = {}
    for name, tensor in tensors.items():
        for ours, theirs in NAMES:
            name, replaced = re.subn(f"^{ours}", theirs, name)
            if replaced:
                break
        found[name] = tensor
    found.pop("encoder.embed_tokens.weight", None)  # the same table as `shared`, in files that transformers wrote
    return found


def build(tensors: Mapping[str, Tensor], dtype: torch.dtype, source: str) -> nn.Module:
    """The encoder in evaluation mode on the CPU; tensors that already have `dtype` stay mapped from disk.

    Args:
        tensors: a checkpoint with Wan's or transformers' names.
        dtype: of weights and arithmetic.
        source: what to call the checkpoint in errors.

    Raises:
        ModelError: if transformers is not installed.
        CheckpointError: if the tensors are not those of a UMT5 encoder.
    """
    try:
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as error:
        raise ModelError(
            f"Encoding a new prompt needs the package transformers ({error}).",
            'Install it with: pip install "tidecast[wan]".',
        ) from None
    tensors = renamed(tensors)

    def shape(name: str) -> tuple[int, ...]:
        return checkpoint.shape_of(tensors, name, source)

    block = "encoder.block.0.layer."
    vocabulary, width = shape("shared.weight")
    buckets, heads = shape(f"{block}0.SelfAttention.relative_attention_bias.weight")
    with torch.device("meta"):
        network = UMT5EncoderModel(
            UMT5Config(
                vocab_size=vocabulary,
                d_model=width,
                d_kv=shape(f"{block}0.SelfAttention.q.weight")[0] // heads,
                d_ff=shape(f"{block}1.DenseReluDense.wi_0.weight")[0],
                num_heads=heads,
                num_layers=sum(name.endswith("SelfAttention.q.weight") for name in tensors),
                relative_attention_num_buckets=buckets,
                relative_attention_max_distance=128,
                feed_forward_proj="gated-gelu",
            )
        )
    ready = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    ready["encoder.embed_tokens.weight"] = ready["shared.weight"]
    checkpoint.load(network, {name: ready[name] for name in network.state_dict() if name in ready} | ready, source)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def embed(network: nn.Module, ids_BX: Tensor, mask_BX: Tensor) -> Tensor:
    """Embeddings [B, X, E]; rows after a text's last token are zero.

    Each text runs alone and without its padding, which a masked encoder does not see either.
    """
    rows = []
    for ids_L, mask_L in zip(ids_BX, mask_BX, strict=True):
        length = int(mask_L.sum())
        hidden_1LD = network(input_ids=ids_L[None, :length]).last_hidden_state
        rows.append(F.pad(hidden_1LD[0], (0, 0, 0, ids_BX.shape[1] - length)))
    return torch.stack(rows)


class ByteLinear(nn.Module):
    """A linear map without bias whose weights are stored as 8-bit floats, with one scale per output."""

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        largest_O1 = weight_OI.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        scale_O1 = largest_O1 / torch.finfo(torch.float8_e4m3fn).max
        self.stored = nn.Parameter((weight_OI.float() / scale_O1).to(torch.float8_e4m3fn), requires_grad=False)
        self.scale_O = nn.Parameter(scale_O1[:, 0].to(weight_OI.dtype), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """Stands in for the weights where transformers asks for their type: that of the arithmetic."""
        return self.scale_O

    def forward(self, x: Tensor) -> Tensor:
        """Apply it in the precision of `x`."""
        return F.linear(x, self.stored.to(x.dtype)) * self.scale_O.to(x.dtype)


def store_in_bytes(network: nn.Module) -> None:
    """Replace every linear map inside by one that stores its weights as 8-bit floats (half the memory of bf16)."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, ByteLinear(child.weight))


def visit_by_block(network: Any, device: torch.device) -> None:
    """Compute on `device` with weights that stay on the CPU: each block's are copied there while it runs.

    Peak memory on the device is one block, not the encoder. The token table stays on the CPU.
    """
    encoder = network.encoder
    encoder.embed_tokens.register_forward_hook(lambda _module, _inputs, output: output.to(device))
    for block in (*encoder.block, encoder.final_layer_norm):
        kept: dict[str, Tensor] = {}

        def arrive(module: nn.Module, _inputs: Any, kept: dict[str, Tensor] = kept) -> None:
            for name, parameter in module.named_parameters():
                kept[name] = parameter.data
                parameter.data = parameter.data.to(device, non_blocking=True)

        def leave(module: nn.Module, _inputs: Any, _output: Any, kept: dict[str, Tensor] = kept) -> None:
            for name, parameter in module.named_parameters():
                parameter.data = kept.pop(name)

        block.register_forward_pre_hook(arrive)
        block.register_forward_hook(leave)
