"""Builders of the Wan2.1 family: from a row of the model table and local files to the parts of a model."""

from __future__ import annotations

import re
import zlib

import torch

from engine.errors import ModelError
from engine.models.registry import Files
from engine.models.spec import Codec, Conditioning, ModelSpec, TextEncoder
from engine.models.wan21.dit import CausalDiT
from engine.models.wan21.vae import VAEShape, WanCodec, WanVAE

SEED = 2511_07399
"""Of random weights."""


def build_dit(spec: ModelSpec, device: torch.device, dtype: torch.dtype, files: Files) -> CausalDiT:
    """The network, in evaluation mode; random weights where `files` has no "dit"."""
    if "dit" in files:
        raise ModelError(f"{spec.name}: checkpoints cannot be read yet.")
    with torch.device("meta"):
        dit = CausalDiT(spec.dit)
    dit = dit.to(dtype).to_empty(device=device)
    dit.init_weights(torch.Generator(device).manual_seed(SEED))
    return dit.eval().requires_grad_(False)


def build_codec(spec: ModelSpec, which: str, device: torch.device, dtype: torch.dtype, files: Files) -> Codec:
    """The video autoencoder; random weights where `files` has none."""
    generator = torch.Generator().manual_seed(SEED)
    network = WanVAE(VAEShape(**spec.vae))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(1.0)
            elif parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.zero_()
    return WanCodec(network.to(device, dtype))


def build_text(spec: ModelSpec, device: torch.device, files: Files) -> TextEncoder:
    """The text encoder; words as random vectors where `files` has none."""
    return WordVectors(spec)


class WordVectors:
    """A text encoder for rows with random weights: every word is a Gaussian vector seeded by its letters."""

    def __init__(self, spec: ModelSpec) -> None:
        self._length, self._width = spec.dit.text_len, spec.dit.text_dim

    def encode(self, text: str) -> Conditioning:
        """One row per word, cut at the model's text length."""
        embedding_LE = torch.zeros(self._length, self._width)
        for row, word in enumerate(re.findall(r"\w+", text.lower())[: self._length]):
            seeded = torch.Generator().manual_seed(zlib.crc32(word.encode()))
            embedding_LE[row] = torch.randn(self._width, generator=seeded)
        return Conditioning(text, embedding_LE)
