"""LoRAs in a session: faders restyle while the stream runs, and nothing else changes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.config import Config, LoraConfig
from engine.controls import Controls
from engine.errors import CheckpointError, ModelError
from engine.frame import Frame
from engine.models import lora_file, lora_slots, registry
from engine.models.wan21 import build
from engine.network.dit_shape import DiTShape
from engine.network.lora import updates
from engine.network.lora.branch import SPARE, Branched
from engine.network.lora.merge import merged
from engine.network.lora.updates import difference
from engine.planning import vram
from engine.runtime.quantise import to_float8
from engine.session import Session
from engine.stream.stream import LocalStream

SPEC = registry.get("wan21-tiny")
CONTROLS = Controls(prompt_1="a forest", prompt_seconds=0.0, strength=0.8, steps=2)
CONFIG = Config(model="wan21-tiny", width=32, height=32, device="cpu", dtype="float32", batch=False)
PERIOD_NS = 40_000_000


def lora(seed: int, only: str = "", width: int = SPEC.network.dim) -> dict[str, Tensor]:  # type: ignore[attr-defined]
    generator, file = torch.Generator().manual_seed(seed), {}
    for name, weight in NETWORK.items():
        if name.endswith(".weight") and weight.dim() == 2 and name.startswith("blocks.") and only in name:
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            file[f"{module}.lora_A.weight"] = torch.randn(2, weight.shape[1], generator=generator) * 0.2
            file[f"{module}.lora_B.weight"] = torch.randn(weight.shape[0], 2, generator=generator) * 0.2
    return file


@pytest.fixture(autouse=True)
def no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A move of the faders is done before the next chunk."""
    monkeypatch.setattr(lora_slots, "SHARE", 1e3)


NETWORK = build.build_network(SPEC, torch.device("cpu"), torch.float32, {}).state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loras")
    save_file(lora(1), path / "noir.safetensors", {"modelspec.title": "Film noir", "modelspec.trigger_phrase": "noir"})
    save_file(lora(2), path / "ink.safetensors")
    pair = {
        "blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 5120),
        "blocks.0.self_attn.q.lora_B.weight": torch.ones(5120, 2),
    }
    save_file(pair, path / "large.safetensors")
    torch.save(NETWORK, path / "base.pt")
    both = [(updates.read(lora(1), NETWORK, "1"), 0.7), (updates.read(lora(2), NETWORK, "2"), -0.4)]
    torch.save(merged(NETWORK, both), path / "merged.pt")
    return path


def opened(folder: Path, *names: str, network: str = "base.pt", **settings: object) -> Session:
    loras = tuple(LoraConfig(file=str(folder / f"{name}.safetensors")) for name in names)
    config = CONFIG.model_copy(update={"loras": loras, **settings})
    return Session.open(config, files={"dit": folder / network})


def play(session: Session, controls: Controls, numbers: range = range(13)) -> np.ndarray:
    made = []
    for n in numbers:
        pixels = np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        session.feed(Frame(pixels, pts_ns=n * PERIOD_NS, seq=n))
        if session.ready:
            made += session.step(controls)
    return np.stack([frame.pixels for frame in made]).astype(int)


def faders(**values: float) -> Controls:
    return dataclasses.replace(CONTROLS, **values)


@pytest.mark.parametrize("compile_", ["off", "graphs"])
def test_two_faders_give_the_picture_of_the_merged_network(folder: Path, compile_: str) -> None:
    with opened(folder, network="merged.pt") as session:
        wanted = play(session, CONTROLS)
    with opened(folder, "noir", "ink", compile=compile_) as session:
        assert session.health.trouble == ""
        found = play(session, faders(lora_1=0.7, lora_2=-0.4))
        assert session.health.loras == "1 Film noir (noir); 2 ink"
    assert np.abs(found - wanted).max() <= 1


def test_at_strength_zero_and_without_any_the_pictures_are_the_same(folder: Path) -> None:
    with opened(folder) as session:
        without = play(session, CONTROLS)
        assert session.health.loras == ""
    with opened(folder, "noir", "ink") as session:
        assert np.array_equal(play(session, CONTROLS), without)
        session.reset()
        moved = play(session, faders(lora_1=1.0))
        assert np.abs(moved - without).max() > 8
        session.reset()
        play(session, CONTROLS, range(5))  # the fader is back; the weights follow within a few chunks
        stream = session._stream
        assert isinstance(stream, LocalStream)
        stream.loras.blend(CONTROLS.lora_strengths(), float("inf"))
        session.reset()
        assert np.array_equal(play(session, CONTROLS), without), "no way of a fader leaves a trace"


def test_a_change_touches_neither_history_nor_addresses(folder: Path) -> None:
    with opened(folder, "noir") as session:
        play(session, faders(lora_1=0.2))
        stream = session._stream
        assert isinstance(stream, LocalStream)
        tensors = dict(stream.state.tensors())
        history = {name: t.clone() for name, t in tensors.items() if not name.startswith("text.")}
        weights = dict(stream.network.named_parameters())  # type: ignore[attr-defined]
        places = {name: t.data_ptr() for name, t in {**tensors, **weights}.items()}
        before = {name: t.clone() for name, t in weights.items()}
        stream.loras.blend(faders(lora_1=1.0).lora_strengths(), float("inf"))
        assert any(not torch.equal(before[name], weights[name]) for name in weights)
        assert all(torch.equal(history[name], tensors[name]) for name in history)
        assert places == {name: t.data_ptr() for name, t in {**dict(stream.state.tensors()), **weights}.items()}


@pytest.mark.parametrize(("only", "changes"), [("cross_attn.k", True), ("self_attn", False)])
def test_the_prompts_keys_follow_where_a_lora_changes_them(folder: Path, only: str, changes: bool) -> None:
    save_file(lora(3, only), folder / f"{only}.safetensors")
    with opened(folder, only) as session:
        play(session, CONTROLS, range(5))
        stream = session._stream
        assert isinstance(stream, LocalStream)
        held = [part.clone() for keys in stream.state.text for part in keys]
        reads = []
        read_text = stream.network.read_text
        stream.network.read_text = lambda *a, **k: reads.append(k["layers"]) or read_text(*a, **k)  # type: ignore
        stream.loras.blend(faders(lora_1=1.0).lora_strengths(), float("inf"))
        assert bool(reads) is changes
        now = [part for keys in stream.state.text for part in keys]
        assert all(torch.equal(a, b) for a, b in zip(held, now, strict=True)) is not changes
        if changes:
            embedding = session.encode_prompt("a forest").embedding
            fresh, _ = read_text(embedding, whole=stream.whole_text)
            for keys, wanted in zip(stream.state.text, fresh, strict=True):
                for part, whole in zip(keys, wanted, strict=True):
                    torch.testing.assert_close(part[tuple(map(slice, whole.shape))], whole)


def until(session: Session, controls: Controls, wanted: str) -> Iterator[None]:
    """Play until the health names the LoRAs that are wanted."""
    end, n = time.monotonic() + 60, 100
    while session.health.loras != wanted and not session.health.trouble:
        assert time.monotonic() < end
        play(session, controls, range(n, n + 5))
        n += 5
        yield


def test_a_file_is_chosen_while_the_stream_runs(folder: Path) -> None:
    with opened(folder) as session:
        play(session, CONTROLS)
        chosen = faders(lora_2=1.0, lora_2_file=str(folder / "ink.safetensors"))  # type: ignore[arg-type]
        for _ in until(session, chosen, "2 ink"):
            pass
        assert session.health.loras == "2 ink" and session.health.trouble == ""
        for _ in until(session, CONTROLS, ""):
            pass
        stream = session._stream
        assert isinstance(stream, LocalStream)
        stream.loras.blend(CONTROLS.lora_strengths(), float("inf"))
        found = stream.network.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(found[name], NETWORK[name]) for name in NETWORK)


def test_a_file_that_does_not_fit_is_said_and_the_stream_goes_on(folder: Path) -> None:
    with opened(folder, "noir") as session:
        play(session, CONTROLS)
        wrong = faders(lora_1_file=str(folder / "large.safetensors"))  # type: ignore[arg-type]
        for _ in until(session, wrong, "never"):
            pass
        assert "LoRA 1:" in session.health.trouble and "width 5120 (Wan 14B)" in session.health.trouble
        assert session.health.loras == "1 Film noir (noir)"


def test_a_file_for_which_there_is_no_memory_does_not_end_the_stream(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> lora_file.LoraFile:
        raise MemoryError("no room")

    with opened(folder, "noir") as session:
        play(session, CONTROLS)
        monkeypatch.setattr(lora_file, "read", full)
        for _ in until(session, faders(lora_1_file=str(folder / "ink.safetensors")), "never"):  # type: ignore[arg-type]
            pass
        assert "LoRA 1 cannot be loaded: MemoryError: no room" in session.health.trouble
        assert session.health.loras == "1 Film noir (noir)"


def test_what_takes_no_lora_says_so_at_the_start(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="width 5120"):
        opened(folder, "large")
    with pytest.raises(CheckpointError, match="There is no LoRA file"):
        opened(folder, "absent")


def test_beside_8_bit_weights_a_fader_moves_at_once_and_nothing_is_rounded_anew(folder: Path) -> None:
    with opened(folder, "noir", weights_dtype="float8") as session:
        play(session, CONTROLS, range(5))
        stream = session._stream
        assert isinstance(stream, LocalStream)
        layer = stream.network.blocks[0].ffn[0]
        assert isinstance(layer, Branched)
        x = torch.randn(1, 3, layer.down_RI.shape[1], generator=torch.Generator().manual_seed(1))
        plain = layer.layer(x)
        assert torch.equal(layer(x), plain), "strength 0 adds nothing"
        place = layer.factor_R.data_ptr()
        stream.loras.blend(faders(lora_1=0.5).lora_strengths(), 0.0)
        update = updates.read(lora(1), NETWORK, "1").updates["blocks.0.ffn.0.weight"]
        assert update.down is not None and update.up is not None
        torch.testing.assert_close(layer(x), plain + 0.5 * (x @ update.down.T @ update.up.T))
        assert layer.factor_R.data_ptr() == place
        qkv = stream.network.blocks[1].self_attn.qkv
        assert isinstance(qkv, Branched)
        x = torch.randn(1, 3, qkv.down_RI.shape[1], generator=torch.Generator().manual_seed(2))
        found = (qkv(x) - qkv.layer(x)).chunk(3, dim=-1)
        for name, part in zip("qkv", found, strict=True):
            update = updates.read(lora(1), NETWORK, "1").updates[f"blocks.1.self_attn.{name}.weight"]
            assert update.down is not None and update.up is not None
            torch.testing.assert_close(part, 0.5 * (x @ update.down.T @ update.up.T), atol=1e-5, rtol=1e-4)
        moved = play(session, faders(lora_1=1.0), range(5, 13))
        session.reset()
        assert np.abs(moved - play(session, CONTROLS)[5:]).max() > 8


def test_the_memory_beside_8_bit_weights_is_what_is_computed(folder: Path) -> None:
    shape = SPEC.network
    assert isinstance(shape, DiTShape)
    assert vram.SPARE_RANK == SPARE
    with opened(folder, "noir", weights_dtype="float8") as session:
        modules = session._stream.network.modules()  # type: ignore[attr-defined]
        layers = [module for module in modules if isinstance(module, Branched)]
        held = sum(layer.down_RI.numel() + layer.up_OR.numel() for layer in layers)
    file = 2 * shape.layers * (18 * shape.dim + 2 * shape.ffn) * vram.ELEMENT  # rank 2 for ten layers, in 16 bits
    setting = vram.Setting(64, 64, "full", float8=True, loras=True, lora_files=file)
    text = shape.layers * 2 * shape.dim**2
    assert vram._loras(shape, setting, shape.layers) == file + vram.ELEMENT * (held + text)


def test_what_does_not_fit_beside_8_bit_weights_is_refused(folder: Path) -> None:
    module = "diffusion_model.blocks.0.ffn.0"
    wide = {f"{module}.lora_A.weight": torch.ones(60, 128), f"{module}.lora_B.weight": torch.ones(256, 60)}
    save_file(wide, folder / "wide.safetensors")
    save_file({f"{module}.diff": torch.ones(256, 128)}, folder / "whole.safetensors")
    with opened(folder, "noir", weights_dtype="float8") as session:
        base = session._stream.loras.base
        for name, words in (("wide", "rank 60, but beside 8-bit weights 32 of 34 places"), ("whole", "in 16 bits")):
            file = lora_file.read(folder / f"{name}.safetensors").fitted(base)
            with pytest.raises(ModelError, match=words) as refused:
                session._stream.loras.load(1, file)
            assert "Name it under engine.loras" in refused.value.remedy
    with opened(folder, weights_dtype="float8") as session:
        play(session, faders(lora_1_file="x.safetensors"), range(5))  # type: ignore[arg-type]
        assert "name at least one under engine.loras" in session.health.trouble


def test_whole_differences_are_merged_into_8_bit_weights_and_quantised_anew(folder: Path) -> None:
    """Bit for bit what quantising the merged weight gives, scales included; and the released bits at strength 0."""
    generator = torch.Generator().manual_seed(5)
    layers = ("blocks.1.ffn.2", "blocks.2.self_attn.k", "blocks.2.self_attn.v")
    file: dict[str, Tensor] = {}
    for number, module in enumerate(layers):
        weight = NETWORK[f"{module}.weight"]
        file[f"{module}.lora_A.weight"] = torch.randn(2, weight.shape[1], generator=generator) * 0.2
        file[f"{module}.lora_B.weight"] = torch.randn(weight.shape[0], 2, generator=generator) * 0.2
        if number < 2:
            file[f"{module}.dora_scale"] = torch.rand(weight.shape[0], 1, generator=generator) + 0.5
        else:
            file[f"{module}.diff"] = torch.randn(weight.shape, generator=generator) * 0.1
    save_file(file, folder / "lengths.safetensors")
    with opened(folder, "noir", "lengths", weights_dtype="float8") as session:
        stream = session._stream
        assert isinstance(stream, LocalStream)
        down, qkv = (stream.network.blocks[1].ffn[2], stream.network.blocks[2].self_attn.qkv)
        dim = NETWORK["blocks.2.self_attn.k.weight"].shape[0]
        held = {
            layers[0]: (down.layer.weight8_OI, down.layer.scale_1O[0]),
            layers[1]: (qkv.layer.weight8_OI[dim : 2 * dim], qkv.layer.scale_1O[0, dim : 2 * dim]),
            layers[2]: (qkv.layer.weight8_OI[2 * dim :], qkv.layer.scale_1O[0, 2 * dim :]),
        }
        released = {name: (weight.clone(), scale.clone()) for name, (weight, scale) in held.items()}
        queries = qkv.layer.weight8_OI[:dim].clone()
        read = updates.read(file, NETWORK, "lengths")
        places = [tensor.data_ptr() for pair in held.values() for tensor in pair]
        for strength in (0.4, -1.2, 0.7):
            stream.loras.blend(faders(lora_2=strength).lora_strengths(), float("inf"))
        for name, (weight, scale) in held.items():
            original = NETWORK[f"{name}.weight"]
            added = difference(read.updates[f"{name}.weight"], original)
            wanted, wanted_scale = to_float8(torch.add(original, added, alpha=0.7))
            assert torch.equal(weight.view(torch.uint8), wanted.view(torch.uint8))
            assert torch.equal(scale, wanted_scale[:, 0])
        assert torch.equal(qkv.layer.weight8_OI[:dim].view(torch.uint8), queries.view(torch.uint8))
        assert torch.count_nonzero(qkv.up_OR[2 * dim :, 2 * qkv.up_OR.shape[1] // 3 :]), "the pair stands beside"
        stream.loras.blend(faders().lora_strengths(), float("inf"))
        for name, (weight, scale) in held.items():
            assert torch.equal(weight.view(torch.uint8), released[name][0].view(torch.uint8))
            assert torch.equal(scale, released[name][1])
        assert places == [tensor.data_ptr() for pair in held.values() for tensor in pair]
        made = play(session, faders(lora_2=1.0), range(5))
        session.reset()
        assert np.abs(made - play(session, CONTROLS, range(5))).max() > 0
