"""The Wan2.1 family's builders: parts built from files equal the saved ones; without files they have seeded weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.errors import CheckpointError
from engine.models import conv
from engine.models.registry import get
from engine.models.taehv.vae import TinyCodec, TinyShape, TinyVAE
from engine.models.wan21 import build, norm_silu
from engine.models.wan21.vae import WanCodec, WanVAE
from engine.models.wan21.vae_layers import NormSiLU
from engine.models.wan21.vae_shape import VAEShape
from engine.network.dit import CausalDiT

SPEC = replace(get("wan21-tiny"), vae={"base": 8})  # with as many blocks as the published autoencoders
CPU = torch.device("cpu")


def saved(network: torch.nn.Module, path: Path) -> Path:
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    torch.save(network.state_dict(), path)
    return path


def test_network_from_a_file_has_the_requested_type(tmp_path: Path) -> None:
    path = saved(CausalDiT(SPEC.network), tmp_path / "model.pt")
    dit = build.build_network(SPEC, CPU, torch.bfloat16, {"dit": path})
    assert not dit.training
    assert not any(parameter.requires_grad for parameter in dit.parameters())
    expected = torch.load(path)["blocks.1.ffn.0.weight"].bfloat16()
    assert torch.equal(dit.state_dict()["blocks.1.ffn.0.weight"], expected)


def test_network_with_an_adapter(tmp_path: Path) -> None:
    path = saved(CausalDiT(SPEC.network), tmp_path / "base.pt")
    name, width = "blocks.0.self_attn.q", SPEC.network.dim
    pair = {f"{name}.lora_A.weight": torch.ones(1, width), f"{name}.lora_B.weight": torch.ones(width, 1)}
    torch.save({"generator_lora": pair}, tmp_path / "lora.pt")
    dit = build.build_network(SPEC, CPU, torch.float32, {"dit": path, "adapter.0": tmp_path / "lora.pt"})
    torch.testing.assert_close(dit.state_dict()[f"{name}.weight"], torch.load(path)[f"{name}.weight"] + 1)


def test_random_weights_are_the_same_every_time() -> None:
    first, second = (build.build_network(SPEC, CPU, torch.float32, {}).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("base", [8, 16])
def test_full_autoencoder_reads_its_width_from_the_file(base: int, tmp_path: Path) -> None:
    path = saved(WanVAE(VAEShape(base=base)), tmp_path / "Wan2.1_VAE.pth")
    codec = build.build_codec(SPEC, "full", CPU, torch.float32, {"vae": path})
    assert isinstance(codec, WanCodec)
    assert codec.shape.base == base
    assert codec.encode(torch.zeros(1, 3, 1, 16, 16), codec.encoder_state(1, 16, 16)).shape == (1, 16, 1, 2, 2)


@pytest.mark.parametrize("which", ["full", "light"])
def test_an_autoencoder_computes_its_norms_with_the_kernel_that_works_here(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.device, torch.dtype]] = []
    calls: list[torch.Size] = []

    def kernel(x: torch.Tensor, *tensors: torch.Tensor) -> None:
        calls.append(x.shape)
        norm_silu.plain(x, *tensors)

    monkeypatch.setattr(norm_silu, "kernel_for", lambda *of: asked.append(of) or kernel)
    monkeypatch.setattr(conv, "on_cpu", lambda tensor: False)  # the layers as on a GPU
    codec = build.build_codec(SPEC, which, CPU, torch.float32, {})
    assert asked == [(CPU, torch.float32)]
    codec.decode(torch.zeros(1, 16, 1, 2, 2), codec.decoder_state(1, 16, 16))
    assert isinstance(codec, WanCodec)
    norms = [module for module in codec.network.decoder.modules() if isinstance(module, NormSiLU)]
    assert len(calls) == len(norms) > 10


def test_light_autoencoder_is_the_full_one_at_a_quarter_of_its_width(tmp_path: Path) -> None:
    random = build.build_codec(SPEC, "light", CPU, torch.float32, {})
    assert isinstance(random, WanCodec)
    assert random.shape.base * 4 == SPEC.vae["base"]
    path = saved(WanVAE(VAEShape(base=4)), tmp_path / "lightvaew2_1.pth")
    codec = build.build_codec(SPEC, "light", CPU, torch.float32, {"light_vae": path})
    assert isinstance(codec, WanCodec)
    assert codec.shape.base == 4


@pytest.mark.parametrize(
    ("which", "role", "raw"), [("tiny", "tiny_vae", False), ("light-tiny", "light_tiny_vae", True)]
)
def test_tiny_autoencoders_use_the_latents_of_their_files(which: str, role: str, raw: bool, tmp_path: Path) -> None:
    path = saved(TinyVAE(TinyShape()), tmp_path / "tiny.pth")
    codec = build.build_codec(SPEC, which, CPU, torch.float32, {role: path})
    assert isinstance(codec, TinyCodec)
    assert codec.raw_latents is raw


@pytest.mark.parametrize("which", ["full", "light", "tiny", "light-tiny"])
def test_rows_with_normalised_latents_encode_into_the_space_that_they_decode(which: str) -> None:
    raw = build.build_codec(SPEC, which, CPU, torch.float32, {})
    normalised = build.build_codec(replace(SPEC, normalised_latents=True), which, CPU, torch.float32, {})
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    mean, std = (torch.tensor(s).view(1, -1, 1, 1, 1) for s in (VAEShape().mean, VAEShape().std))
    expected = (raw.encode(video, raw.encoder_state(1, 16, 16)) - mean) / std
    got = normalised.encode(video, normalised.encoder_state(1, 16, 16))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_file_of_another_part_is_refused(tmp_path: Path) -> None:
    path = saved(CausalDiT(SPEC.network), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"has no tensor 'encoder.conv1.weight'"):
        build.build_codec(SPEC, "full", CPU, torch.float32, {"vae": path})
    with pytest.raises(CheckpointError, match="does not hold this network"):
        build.build_codec(SPEC, "tiny", CPU, torch.float32, {"tiny_vae": path})
    with pytest.raises(CheckpointError, match="of another shape"):
        build.build_network(replace(SPEC, network=replace(SPEC.network, ffn=512)), CPU, torch.float32, {"dit": path})


def test_rows_without_a_text_encoder_read_words_as_random_vectors(tmp_path: Path) -> None:
    for files in ({}, {"dit": tmp_path / "model.pt"}):
        words = build.build_text(SPEC, CPU, files)
        once, again, other = (words.encode(text).embedding for text in ("neon city", "Neon, city", "rain"))
        assert torch.equal(once, again) and not torch.equal(once, other)


def test_prompts_are_cached_by_the_hash_of_their_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "prompt_folder", lambda: tmp_path)
    spec = get("wan21-1.3b")
    other = tmp_path / "other.pth"
    other.write_bytes(b"another encoder")
    known = build.build_text(spec, CPU, {"dit": tmp_path})
    assert known._cache.encoder.startswith("7cace0da2b446bbb")
    mine = build.build_text(spec, CPU, {"text": other})
    assert mine._cache.folder != known._cache.folder
    assert build.build_text(spec, CPU, {"text": other})._cache.folder == mine._cache.folder
