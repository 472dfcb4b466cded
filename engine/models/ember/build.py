"""Builders of the Ember family: create the parts of the model from its row and the weights in the package."""

from __future__ import annotations

import torch

from engine.models import lora_file
from engine.models.ember.codec import EmberCodec
from engine.models.ember.weights import WEIGHTS, read
from engine.models.ember.word_table import WordTable
from engine.models.registry import Files, adapters
from engine.models.spec import Codec, ModelSpec, TextEncoder
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape
from engine.network.lora.merge import merged


def build_network(spec: ModelSpec, device: torch.device, dtype: torch.dtype, files: Files) -> CausalDiT:
    """The network, in evaluation mode, from `files["dit"]` or the weights in the package, with adapters merged into it.

    Raises:
        CheckpointError: if an adapter is not for this network.
    """
    dit = CausalDiT(dit_shape(spec.network))
    read(dit, "dit", files.get("dit", WEIGHTS))
    base = dit.state_dict()
    loras = [(lora_file.read(path).fitted(base), strength) for path, strength in adapters(spec, files)]
    if loras:
        dit.load_state_dict(merged(base, loras))
    return dit.to(device, dtype)


def build_codec(spec: ModelSpec, which: str, device: torch.device, dtype: torch.dtype, files: Files) -> Codec:
    """The autoencoder, from `files["vae"]` or the weights in the package. There is only one, so `which` is ignored."""
    codec = EmberCodec(spec.network.latent_channels, **spec.vae)
    read(codec, "codec", files.get("vae", WEIGHTS))
    return codec.to(device=device, dtype=dtype, memory_format=torch.channels_last)


def build_text(
    spec: ModelSpec, device: torch.device, files: Files, *, where: str = "auto", storage: str = "bfloat16"
) -> TextEncoder:
    """The word table, from `files["text"]` or the weights in the package.

    It is small and always stays on the CPU in fp32: `device`, `where` and `storage` are ignored.
    """
    assert spec.vocabulary is not None  # every row of this family has one
    words = WordTable(spec.network.text_len, spec.network.text_dim, spec.vocabulary)
    read(words, "words", files.get("text", WEIGHTS))
    return words
