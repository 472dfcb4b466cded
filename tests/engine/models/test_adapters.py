"""Adapters, end to end: models are opened from files; and those that cannot take adapters refuse them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.config import Config
from engine.controls import Controls
from engine.errors import CheckpointError, ModelError
from engine.frame import Frame
from engine.models import registry
from engine.models.registry import Files
from engine.models.spec import WeightFile
from engine.models.wan21 import build
from engine.session import Session

BASE = registry.get("wan21-tiny")
ADAPTED = replace(
    BASE,
    name="tiny-with-adapters",
    files=(
        WeightFile("dit", "base.pt", "", 0),
        WeightFile("adapter", "peft.pt", "", 0, strength=0.5),
        WeightFile("adapter", "kohya.safetensors", "", 0, strength=-2.0),
    ),
)
CONFIG = Config(model=ADAPTED.name, width=32, height=32, device="cpu", dtype="float32")
Q, FFN = "blocks.0.self_attn.q", "blocks.1.ffn.2"
RANK, ALPHA = 2, 1.0


def frames(config: Config, files: Files | None = None) -> np.ndarray:
    rng, made = np.random.default_rng(3), []
    with Session.open(config, files=files) as session:
        for n in range(13):
            session.feed(Frame(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), pts_ns=n * 40_000_000, seq=n))
            if session.ready:
                made += session.step(Controls(prompt_1="the sea", strength=0.8, steps=2))
    return np.stack([frame.pixels for frame in made]).astype(int)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base file, two adapters in two layouts, and a file with their sum."""
    monkeypatch.setitem(registry.REGISTRY, ADAPTED.name, ADAPTED)
    base = build.build_network(BASE, torch.device("cpu"), torch.float32, {}).state_dict()
    torch.save(base, tmp_path / "base.pt")
    generator, whole = torch.Generator().manual_seed(4), dict(base)
    peft, other = {}, {}
    for name, bare in ((Q, "lora_unet_blocks_0_self_attn_q"), (FFN, "lora_unet_blocks_1_ffn_2")):
        outputs, inputs = base[f"{name}.weight"].shape
        a, c = (torch.randn(RANK, inputs, generator=generator) * 0.2 for _ in range(2))
        b, d = (torch.randn(outputs, RANK, generator=generator) * 0.2 for _ in range(2))
        peft |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
        other |= {f"{bare}.lora_down.weight": c, f"{bare}.lora_up.weight": d, f"{bare}.alpha": torch.tensor(ALPHA)}
        whole[f"{name}.weight"] = base[f"{name}.weight"] + 0.5 * b @ a - 2.0 * ALPHA / RANK * d @ c
    torch.save({"generator_lora": peft}, tmp_path / "peft.pt")
    save_file(other, tmp_path / "kohya.safetensors")
    torch.save(whole, tmp_path / "sum.pt")
    return tmp_path


def test_a_model_opens_with_adapters_of_two_layouts(folder: Path) -> None:
    config = CONFIG.model_copy(update={"weights_dir": str(folder)})
    found = frames(config)
    wanted, bare = (frames(CONFIG, {"dit": folder / name}) for name in ("sum.pt", "base.pt"))
    assert np.abs(found - wanted).max() <= 1
    assert np.abs(found - bare).max() > 8


def test_ember_refuses_adapters_of_another_network(folder: Path) -> None:
    config = Config(model="ember", width=32, height=32, device="cpu")
    with pytest.raises(CheckpointError, match=r"peft\.pt was made for a network of width 128; .* is 256 \(Ember\)"):
        Session.open(config, files={"adapter.0": folder / "peft.pt"})


def test_random_weights_refuse_adapters(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no network to add .*peft\.pt"):
        Session.open(CONFIG, files={"adapter.0": folder / "peft.pt"})
