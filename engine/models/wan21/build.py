"""Builders of the Wan2.1 family: create the parts of a model from a row of the model table and local files.

A part for which `files` has no file gets seeded random weights of the right shape, for tests and benchmarks.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models.cache_folder import cache_folder
from engine.models.registry import Files, adapters
from engine.models.spec import CODECS, Codec, Conditioning, ModelSpec, TextEncoder
from engine.models.taehv.vae import TinyCodec, TinyShape, TinyVAE
from engine.models.wan21 import checkpoint, norm_silu
from engine.models.wan21.text import EmbeddingCache, WanTextEncoder
from engine.models.wan21.vae import WanCodec, WanVAE
from engine.models.wan21.vae_shape import VAEShape
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape, dit_shape
from engine.network.lora.merge import merged
from engine.network.lora.updates import read

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)

SEED = 2511_07399
"""Seed of random weights."""


def build_network(spec: ModelSpec, device: torch.device, dtype: torch.dtype, files: Files) -> CausalDiT:
    """The network, in evaluation mode, from `files["dit"]`, with the adapters in `files` merged into its weights.

    Raises:
        CheckpointError: if a file does not hold this network, or an adapter for it.
        ModelError: if there are adapters, but no file of the network to add them to.
    """
    given = adapters(spec, files)
    if given and "dit" not in files:
        raise ModelError(
            f"There is no network to add {given[0][0]} to: without a file it would have random weights.",
            'Name the file of the network too (role "dit").',
        )
    shape = dit_shape(spec.network)
    if "dit" in files:
        tensors = checkpoint.read(files["dit"], ema=spec.ema)
        shape = replace(shape, source_channels=_source_channels(tensors, shape))
        loras = [(read(checkpoint.read(path), tensors, str(path)), strength) for path, strength in given]
        if loras:
            tensors = merged(tensors, loras)
        with torch.device("meta"):
            dit = CausalDiT(shape)
        _fill(dit, tensors, device, dtype, files["dit"])
    else:
        with torch.device("meta"):
            dit = CausalDiT(shape)
        dit = dit.to(dtype).to_empty(device=device)
        dit.init_weights(torch.Generator(device).manual_seed(SEED))
    return dit.eval().requires_grad_(False)


def _source_channels(tensors: dict[str, Tensor], shape: DiTShape) -> int:
    """Channels of the source's latents that a checkpoint's network takes: as many as noisy ones, or none."""
    embedding = tensors.get("patch_embedding.weight")
    takes = embedding is not None and embedding.shape[1] == 2 * shape.latent_channels
    return shape.latent_channels if takes else 0


def build_codec(spec: ModelSpec, which: str, device: torch.device, dtype: torch.dtype, files: Files) -> Codec:
    """The video autoencoder, from the file with the role `CODECS[which]`.

    Args:
        spec: the row.
        which: "full" (Wan2.1's VAE); "light" (LightVAE: the same with a quarter of the width, which is read from the
            file); "tiny" (TAEHV); or "light-tiny" (LightTAE, which works on un-normalised latents).
        device: where it runs.
        dtype: type of its weights and its arithmetic.
        files: local files.

    Raises:
        CheckpointError: if the file does not hold this autoencoder.
    """
    shape = VAEShape(**spec.vae)
    path = files.get(CODECS[which])
    tensors = checkpoint.read(path) if path else None
    network: WanVAE | TinyVAE
    if which in ("tiny", "light-tiny"):
        with torch.device("meta"):
            network = TinyVAE(TinyShape())
        tensors = network.trimmed(tensors) if tensors else None
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
        codec = WanCodec(network, normalised=spec.normalised_latents)
        codec.use(norm_silu.kernel_for(device, dtype))
        return codec
    return TinyCodec(network, raw_latents=which == "light-tiny", normalised=spec.normalised_latents, latents=shape)


def build_text(
    spec: ModelSpec, device: torch.device, files: Files, *, where: str = "auto", storage: str = "bfloat16"
) -> TextEncoder:
    """The text encoder: known prompts are read from the cache, new ones are encoded by UMT5.

    Args:
        spec: the row.
        device: where the network runs.
        files: local files; "text" and "tokenizer" are needed for new prompts. If it is empty, or the row has no text
            encoder, the result is a `WordVectors`.
        where: where UMT5 runs; see `WanTextEncoder`.
        storage: type in which its weights are stored; see `WanTextEncoder`.
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
    """The folder of the cached prompt embeddings."""
    return cache_folder() / "prompts"


def _encoder_hash(spec: ModelSpec, path: Path | None) -> str:
    """SHA-256 that identifies the text encoder: from the model table, or computed for a file that is not in it."""
    known = next((file for file in spec.files if file.role == "text"), None)
    if path is None or (known is not None and known.sha256 and path.stat().st_size == known.bytes):
        return known.sha256 if known is not None else ""
    log.info("computing the hash of %s, to identify the text encoder", path)
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
    """A text encoder for models with random weights: every word becomes a Gaussian vector, seeded by its spelling."""

    def __init__(self, spec: ModelSpec) -> None:
        self._length, self._width = spec.network.text_len, spec.network.text_dim

    def encode(self, text: str) -> Conditioning:
        """One row per word; words beyond the model's text length are dropped."""
        embedding_XE = torch.zeros(self._length, self._width)
        for row, word in enumerate(re.findall(r"\w+", text.lower())[: self._length]):
            seeded = torch.Generator().manual_seed(zlib.crc32(word.encode()))
            embedding_XE[row] = torch.randn(self._width, generator=seeded)
        return Conditioning(text, embedding_XE)
