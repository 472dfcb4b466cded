"""Builders of the toy family: seeded weights, an autoencoder that averages 4 x 4 pixels, a text encoder by length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.models.codec_memory import CodecMemory, CodecStates
from engine.models.registry import Files
from engine.models.spec import Codec, Conditioning, ModelSpec, TextEncoder
from tests.support.toy_family.network import TwoConvolutions
from tests.support.toy_family.specs import ConvShape


def build_network(spec: ModelSpec, device: torch.device, dtype: torch.dtype, files: Files) -> TwoConvolutions:
    assert isinstance(spec.network, ConvShape)
    torch.manual_seed(1)
    return TwoConvolutions(spec.network).to(device, dtype).eval().requires_grad_(False)


class MeanCodec(CodecStates):
    """One latent pixel is the mean of 4 x 4; every frame is one latent frame."""

    latent_channels, stride, frames_per_latent = 3, 4, 1

    def encode(self, video_BCTHW: Tensor, state: Any) -> Tensor:
        state.started.fill_(1)
        return functional.avg_pool3d(video_BCTHW, (1, 4, 4))

    def decode(self, latent_BCFhw: Tensor, state: Any) -> Tensor:
        state.started.fill_(1)
        return functional.interpolate(latent_BCFhw.float(), scale_factor=(1, 4, 4)).clamp(-1, 1)

    def _new_memory(self, side: str, batch: int, height: int, width: int) -> CodecMemory:
        return CodecMemory({})


def build_codec(spec: ModelSpec, which: str, device: torch.device, dtype: torch.dtype, files: Files) -> Codec:
    return MeanCodec()


class Lengths:
    """Encodes every word as its length."""

    def __init__(self, shape: ConvShape) -> None:
        self._shape = shape

    def encode(self, text: str) -> Conditioning:
        embedding = torch.zeros(self._shape.text_len, self._shape.text_dim)
        for row, word in enumerate(text.split()[: self._shape.text_len]):
            embedding[row] = torch.sin(torch.arange(self._shape.text_dim) * float(len(word)))
        return Conditioning(text, embedding)


def build_text(
    spec: ModelSpec, device: torch.device, files: Files, *, where: str = "auto", storage: str = "bfloat16"
) -> TextEncoder:
    assert isinstance(spec.network, ConvShape)
    return Lengths(spec.network)
