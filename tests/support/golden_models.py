"""Reference vectors of the tiny autoencoder and of the text encoder."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.models.taehv.vae import TinyCodec, TinyShape, TinyVAE
from engine.models.wan21 import umt5
from tests.support.golden_set import GoldenSet, Report


def tiny_autoencoder(golden: GoldenSet, name: str, report: Report) -> None:
    """Decoding with carried memory, and the release's own way: up to three latents decoded again with each new one."""
    data, meta = golden.case(name)
    network = TinyVAE(_shape(meta))
    weights = _weights(meta)
    blank = {key: torch.zeros_like(value) for key, value in network.state_dict().items() if key not in weights}
    network.load_state_dict(weights | blank)
    codec = TinyCodec(network)
    z_BCFhw = data["latents"].transpose(1, 2)
    height, width = (side * codec.stride for side in z_BCFhw.shape[-2:])

    def decoded(latents_BCFhw: Tensor) -> Tensor:
        return codec.decode(latents_BCFhw, codec.decoder_state(1, height, width))[0].transpose(0, 1)

    lead_in = codec.frames_per_latent - 1
    report.check("frames", "full_sequential", decoded(z_BCFhw), data["full_sequential"][lead_in:])
    end = 0
    for index in range(sum(key.startswith("stream.") for key in data)):
        end += 2 if index == 0 else 1
        window = z_BCFhw[:, :, max(0, end - 4) : end]
        wanted = data[f"stream.{index}"]
        report.check("frames", f"stream.{index}", decoded(window)[-len(wanted) :], wanted)


def _shape(meta: dict[str, Any]) -> TinyShape:
    shapes = meta["shapes"]
    widths = tuple(shapes[f"decoder.{index}.weight"][0] for index in (1, 8, 14, 20))
    return TinyShape(latent=shapes["decoder.1.weight"][1], decoder=widths)


def _weights(meta: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that the case's recipe describes."""
    weights = {}
    for name, shape in meta["shapes"].items():
        random = np.random.RandomState((meta["SEED"] * 1000003 + zlib.crc32(name.encode())) % 2**32)
        spread = 0.05 if name.endswith("bias") else (2 / np.prod(shape[1:])) ** 0.5
        weights[name] = torch.from_numpy((random.standard_normal(shape) * spread).astype(np.float32))
    weights[f"{meta['last']}.weight"] *= 0.0012
    weights[f"{meta['last']}.bias"] += 0.5
    return weights


def text_encoder(golden: GoldenSet, name: str, report: Report) -> None:
    """Embeddings of two padded texts, zero after their last token."""
    data, _ = golden.case(name)
    weights = {key.removeprefix("w."): value for key, value in data.items() if key.startswith("w.")}
    network = umt5.build(weights, torch.float32, name)
    report.check("latent", "prompt_embeds", umt5.embed(network, data["ids"], data["mask"]), data["prompt_embeds"])
