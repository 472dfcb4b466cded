"""Builders of the Wan2.1 family: from a row of the model table and local files to the parts of a model.

Where `files` has nothing for a role, the part gets seeded random weights of the right shape (tests, timings).
"""

from __future__ import annotations

import hashlib
import logging
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import platformdirs
import torch
from torch import Tensor, nn

from engine.models.registry import Files, adapters
from engine.models.spec import CODECS, Codec, Conditioning, ModelSpec, TextEncoder
from engine.models.taehv.vae import TinyCodec, TinyShape, TinyVAE
from engine.models.wan21 import checkpoint
from engine.models.wan21.text import EmbeddingCache, WanTextEncoder
from engine.models.wan21.vae import WanCodec, WanVAE
from engine.models.wan21.vae_shape import VAEShape
from engine.network.adapters import Adapter, merged
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)

SEED = 2511_07399
"""Of random weights."""


def build_network(spec: ModelSpec, device: torch.device, dtype: torch.dtype, files: Files) -> CausalDiT:
    """The network, in evaluation mode, from `files["dit"]`, with the adapters in `files` added.

    Raises:
        CheckpointError: if the file does not hold it.
    """
    with torch.device("meta"):
        dit = CausalDiT(dit_shape(spec.network))
    if "dit" in files:
        tensors = checkpoint.read(files["dit"])
        parts = [Adapter(checkpoint.read(path), str(path), strength) for path, strength in adapters(spec, files)]
        if parts:
            tensors = merged(tensors, parts)
        _fill(dit, tensors, device, dtype, files["dit"])
    else:
        dit = dit.to(dtype).to_empty(device=device)
        dit.init_weights(torch.Generator(device).manual_seed(SEED))
    return dit.eval().requires_grad_(False)


def build_codec(spec: ModelSpec, which: str, device: torch.device, dtype: torch.dtype, files: Files) -> Codec:
    """The video autoencoder, from the file whose role `CODECS` names.

    Args:
        spec: the row.
        which: "full"; "light", which is the same at a quarter of its width (LightVAE; the width is read from the
            file); "tiny" (TAEHV); or "light-tiny" (LightTAE, which works on un-normalised latents).
        device: where it runs.
        dtype: of its weights and arithmetic.
        files: local files.

    Raises:
        CheckpointError: if the file does not hold it.
    """
    shape = VAEShape(**spec.vae)
    path = files.get(CODECS[which])
    tensors = checkpoint.read(path) if path else None
    network: WanVAE | TinyVAE
    if which in ("tiny", "light-tiny"):
        with torch.device("meta"):
            network = TinyVAE(TinyShape())
        tensors = network.fitted(tensors) if tensors else None
    else:
        base = shape.base if which == "full" else max(1, shape.base // 4)
        if tensors:
            base = checkpoint.shape_of(tensors, "encoder.conv1.weight", str(path))[0]
        with torch.device("meta"):
            network = WanVAE(replace(shape, base=base))
    if path and tensors:
        _fill(network, tensors, device, dtype, path)
    else:
        network = _random(network.to_empty(device="cpu")).to(device, dtype)
    if isinstance(network, WanVAE):
        return WanCodec(network, normalised=spec.normalised_latents)
    return TinyCodec(network, raw_latents=which == "light-tiny", normalised=spec.normalised_latents, latents=shape)


def build_text(
    spec: ModelSpec, device: torch.device, files: Files, *, where: str = "auto", storage: str = "bfloat16"
) -> TextEncoder:
    """The text encoder: prompts from the cache, new ones by UMT5 from `files["text"]` and `files["tokenizer"]`.

    Args:
        spec: the row.
        device: where the model runs.
        files: without any file at all, and for a row that has no text encoder, words become random vectors.
        where: where UMT5 runs; see `WanTextEncoder`.
        storage: how its weights are held; see `WanTextEncoder`.
    """
    if not files or not ("text" in files or any(file.role == "text" for file in spec.files)):
        return WordVectors(spec)
    return WanTextEncoder(
        spec.name,
        spec.network.text_len,
        spec.network.text_dim,
        EmbeddingCache(prompt_folder(), f"{_encoder_hash(spec, files.get('text'))} {storage}"),
        weights=files.get("text"),
        tokenizer=files.get("tokenizer"),
        device=device,
        where=where,
        storage=storage,
    )


def prompt_folder() -> Path:
    """Where embeddings of prompts are kept."""
    return platformdirs.user_cache_path("tidecast") / "prompts"


def _encoder_hash(spec: ModelSpec, path: Path | None) -> str:
    """What tells this text encoder from others: the hash in the model table, or of a file that is not that one."""
    known = next((file for file in spec.files if file.role == "text"), None)
    if path is None or (known is not None and known.sha256 and path.stat().st_size == known.bytes):
        return known.sha256 if known is not None else ""
    log.info("reading %s once to know it again", path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(network: nn.Module, tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype, path: Path) -> None:
    checkpoint.load(network, tensors, str(path))
    network.to(device=device, dtype=dtype)


@torch.no_grad()
def _random(network: Network) -> Network:
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            parameter.fill_(1.0)
        elif parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.zero_()
    return network


class WordVectors:
    """A text encoder for rows with random weights: every word is a Gaussian vector seeded by its letters."""

    def __init__(self, spec: ModelSpec) -> None:
        self._length, self._width = spec.network.text_len, spec.network.text_dim

    def encode(self, text: str) -> Conditioning:
        """One row per word, cut at the model's text length."""
        embedding_XE = torch.zeros(self._length, self._width)
        for row, word in enumerate(re.findall(r"\w+", text.lower())[: self._length]):
            seeded = torch.Generator().manual_seed(zlib.crc32(word.encode()))
            embedding_XE[row] = torch.randn(self._width, generator=seeded)
        return Conditioning(text, embedding_XE)
