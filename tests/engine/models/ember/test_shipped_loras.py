"""The LoRAs that come with Ember: they fit, say their names, and bring their looks to clips that they never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bridge.process.engine.choice import lora_files
from engine.config import Config
from engine.models import lora_file, registry
from engine.models.ember.training.footage.scenes import clip
from engine.models.ember.training.looks.lora import distances, look_of

SHIPPED = {"infrared": "Infrared", "xray": "X-ray"}
FOLDER = Path(registry.__file__).with_name("ember") / "loras"
HALVES = {"lora_A": "down_RI", "lora_B": "up_OR"}


def pairs(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by the names that the training gives them."""
    found = {}
    for key, tensor in load_file(path).items():
        module, half, _ = key.removeprefix("diffusion_model.").rsplit(".", 2)
        found[f"{module.replace('.', '/')}.{HALVES[half]}"] = tensor.float()
    return found


def test_they_are_on_the_first_faders_of_ember(tmp_path: Path) -> None:
    files = lora_files(Config(model="ember", weights_dir=str(tmp_path)))
    assert [Path(file).stem for file in files if file] == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_brings_its_look(name: str) -> None:
    path = FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 100_000
    with safe_open(path, "pt") as file:
        assert file.metadata()["modelspec.title"] == SHIPPED[name]
    assert lora_file.fits(lora_file.read(path), registry.get("ember"))
    unseen = np.stack([clip(np.random.default_rng((902, n)), 9, 128) for n in range(2)])
    without, given = distances(pairs(path), look_of(name), unseen)[1:]
    assert given < 0.7 * without
