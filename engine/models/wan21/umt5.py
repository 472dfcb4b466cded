"""The UMT5 text encoder with Wan's checkpoints: the network is that of transformers, its sizes are read from the file.

To save memory its weights can be stored in 8 bits, or stay on the CPU and be copied to the device block by block.
transformers (in the optional extra `wan`) is imported when an encoder is built.

Shape letters: B batch, X tokens, E width of the encoder.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models.wan21 import checkpoint
from engine.runtime.transfers import PiecewiseUpload, SideStream

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
"""Tensor names in Wan's checkpoints, as regular expressions, and in transformers."""


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with transformers' names; names that already are in that form are kept."""
    found = {}
    for name, tensor in tensors.items():
        for ours, theirs in NAMES:
            name, replaced = re.subn(f"^{ours}", theirs, name)
            if replaced:
                break
        found[name] = tensor
    found.pop("encoder.embed_tokens.weight", None)  # a copy of `shared` in checkpoints written by transformers
    return found


def build(tensors: Mapping[str, Tensor], dtype: torch.dtype, source: str) -> nn.Module:
    """The encoder, in evaluation mode, on the CPU; tensors that already have `dtype` stay memory-mapped.

    Args:
        tensors: a checkpoint with Wan's or transformers' names.
        dtype: type of the weights and the arithmetic.
        source: name of the checkpoint for error messages.

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

    The texts are encoded one by one without their padding, which gives the same result as a batch with a mask.

    Args:
        network: the encoder.
        ids_BX: token ids.
        mask_BX: 1 for tokens, 0 for the padding after them.
    """
    rows = []
    for ids_X, mask_X in zip(ids_BX, mask_BX, strict=True):
        length = int(mask_X.sum())
        hidden_1XE = network(input_ids=ids_X[None, :length]).last_hidden_state
        rows.append(F.pad(hidden_1XE[0], (0, 0, 0, ids_BX.shape[1] - length)))
    return torch.stack(rows)


class Float8StoredLinear(nn.Module):
    """A linear layer without bias whose weights are stored as float8 (e4m3), with one scale per output."""

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        largest_O1 = weight_OI.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        scale_O1 = largest_O1 / torch.finfo(torch.float8_e4m3fn).max
        self.stored = nn.Parameter((weight_OI.float() / scale_O1).to(torch.float8_e4m3fn), requires_grad=False)
        self.scale_O = nn.Parameter(scale_O1[:, 0].to(weight_OI.dtype), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """A tensor with the type of the arithmetic, since transformers reads `weight.dtype` to find it."""
        return self.scale_O

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], computed in the type of `x`."""
        return F.linear(x, self.stored.to(x.dtype)) * self.scale_O.to(x.dtype)


def store_as_float8(network: nn.Module) -> None:
    """Replace every linear layer by a `Float8StoredLinear`, which needs half the memory of bfloat16."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Float8StoredLinear(child.weight))


def offload_by_block(network: Any, device: torch.device, side: SideStream) -> None:
    """Run the encoder on `device` while its weights stay on the CPU: those of a block are copied while it runs.

    So the device needs memory for one block only. The token embedding runs on the CPU. Whatever ends a block's forward,
    its weights are back on the CPU afterwards.

    Args:
        network: the encoder, on the CPU.
        device: where it runs.
        side: the stream in which the weights are copied; it is active whenever the network is called.
    """
    encoder, uploads = network.encoder, PiecewiseUpload(side)

    def upload(tensor: Tensor) -> Tensor:
        copy = torch.empty_like(tensor, device=device, memory_format=torch.contiguous_format)
        uploads.send(tensor, copy)
        return copy

    encoder.embed_tokens.register_forward_hook(lambda _module, _inputs, output: upload(output))
    for block in (*encoder.block, encoder.final_layer_norm):
        block.forward = _with_weights_on_device(block, upload)


def _with_weights_on_device(block: nn.Module, upload: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """The block's forward with its weights uploaded before it and dropped from the device after it."""
    forward = block.forward

    @functools.wraps(forward)
    def run(*inputs: Any, **options: Any) -> Any:
        on_cpu = [(parameter, parameter.data) for parameter in block.parameters()]
        try:
            for parameter, weights in on_cpu:
                parameter.data = upload(weights)
            return forward(*inputs, **options)
        finally:
            for parameter, weights in on_cpu:
                parameter.data = weights

    return run
