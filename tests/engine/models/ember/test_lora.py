"""LoRAs for Ember: trained with the shipped model frozen, written as a file, and played on a fader."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from engine.config import Config, LoraConfig
from engine.controls import Controls
from engine.errors import CheckpointError, ConfigError
from engine.frame import Frame
from engine.models import lora_file, registry
from engine.models.ember.training.footage.data import Lesson
from engine.models.ember.training.footage.scenes import clip
from engine.models.ember.training.footage.styles import STYLES
from engine.models.ember.training.looks.lora import LookLessons, LoraTask, distances, look_of, write
from engine.models.ember.training.loop import Pace, Trainer
from engine.models.ember.weights import read
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape
from engine.session import Session

SPEC = registry.get("ember")
LOOK = "palette:000000,c82800,ffffff"


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.stack([clip(np.random.default_rng((21, n)), 9, 64) for n in range(2)])


class OneLesson(LookLessons):
    """The same lesson at every step, so that the loss must fall."""

    def at(self, number: int) -> Lesson:
        return super().at(0)


def task(clips: np.ndarray) -> LoraTask:
    return LoraTask(OneLesson(clips, look_of(LOOK), 3, batch=2), 2, 5)


@pytest.fixture(scope="module")
def trained(clips: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float], LoraTask]:
    folder, made, losses = tmp_path_factory.mktemp("lora"), task(clips), []
    trainer = Trainer(made, folder / "run.pt", 5, torch.device("cpu"), average=0.5)
    trainer.pace = Pace(warmup=1)
    loss = made.loss

    def noted(number: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        found = loss(7, torch.Generator().manual_seed(7))  # the same noise too
        losses.append(found[0].item())
        return found

    made.loss = noted  # type: ignore[method-assign]
    trainer.run(steps=8, report=lambda line: None)
    write(folder / "look.safetensors", trainer.averages["lora"], LOOK)
    return folder, losses, made


def test_only_the_pairs_learn_and_the_loss_falls(trained: tuple[Path, list[float], LoraTask]) -> None:
    _, losses, made = trained
    assert losses[-1] < 0.985 * losses[0]
    shipped = CausalDiT(dit_shape(SPEC.network))
    read(shipped, "dit")
    found = dict(made.dit.named_parameters())
    for name, weight in shipped.state_dict().items():
        module, _, leaf = name.rpartition(".")
        kept = found.get(name, found.get(f"{module}.parametrizations.{leaf}.original"))
        assert kept is not None and torch.equal(kept, weight), name
    assert len(made.pairs) == 4 * 5 + 1


def test_the_distance_from_the_look_is_measured_with_and_without(
    trained: tuple[Path, list[float], LoraTask], clips: np.ndarray
) -> None:
    tensors = {name: tensor.detach() for name, tensor in trained[2].pairs.state_dict().items()}
    plain = distances({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, look_of(LOOK), clips[:1])
    learnt = distances(tensors, look_of(LOOK), clips[:1])
    assert plain[1] == plain[2] and learnt[:2] == plain[:2]
    assert learnt[2] != plain[2]


def test_an_interrupted_training_goes_on_as_if_it_were_not(clips: np.ndarray, tmp_path: Path) -> None:
    whole = Trainer(task(clips), tmp_path / "whole.pt", 5, torch.device("cpu"))
    whole.run(steps=2)
    for _ in range(2):
        part = Trainer(task(clips), tmp_path / "part.pt", 5, torch.device("cpu"))
        part.run(steps=1)
    assert all(torch.equal(tensor, part.averages["lora"][name]) for name, tensor in whole.averages["lora"].items())


def play(session: Session, strength: float) -> np.ndarray:
    controls = dataclasses.replace(Controls(prompt_1="", prompt_seconds=0.0, strength=0.5, steps=1), lora_1=strength)
    rng, made = np.random.default_rng(3), []
    for n in range(9):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        session.feed(Frame(pixels, pts_ns=n * 40_000_000, seq=n))
        if session.ready:
            made += session.step(controls)
    return np.stack([frame.pixels for frame in made]).astype(int)


def test_the_file_is_a_fader_of_ember(trained: tuple[Path, list[float], LoraTask]) -> None:
    path = trained[0] / "look.safetensors"
    assert path.stat().st_size < 100_000
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"modelspec.title": "Palette", "modelspec.architecture": "tidecast/ember"}
    fit = lora_file.fits(lora_file.read(path), SPEC)
    assert fit.ranks == (2,) and len(fit.updates) == 21
    config = Config(model="ember", width=64, height=64, device="cpu", dtype="float32")
    with Session.open(config) as session:
        plain = play(session, 1.0)
    given = (LoraConfig(file=str(path)),)
    with Session.open(config.model_copy(update={"loras": given})) as session:
        assert np.array_equal(play(session, 0.0), plain)
        assert session.health.loras == "1 Palette"
        session.reset()
        session._stream.loras.blend((1.0,) + (0.0,) * 7, float("inf"))
        moved = play(session, 1.0)
    assert np.abs(moved - plain).mean() > 0.5
    merged = Config(model="ember", width=64, height=64, device="cpu", dtype="float32")
    with Session.open(merged, files={"adapter.0": path}) as session:
        assert np.abs(play(session, 0.0) - moved).max() <= 1, "merged for good"


def test_a_lora_of_another_network_is_refused(tmp_path: Path) -> None:
    pair = {
        "blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 1536),
        "blocks.0.self_attn.q.lora_B.weight": torch.ones(1536, 2),
    }
    torch.save(pair, tmp_path / "wan.pt")
    given = (LoraConfig(file=str(tmp_path / "wan.pt")),)
    config = Config(model="ember", width=64, height=64, device="cpu", loras=given)
    with pytest.raises(CheckpointError, match=r"width 1536 \(Wan 1\.3B\); this one's width is 256 \(Ember\)"):
        Session.open(config)


def test_looks_are_those_that_ember_lacks_and_palettes() -> None:
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for name in ("xray", "infrared", LOOK):
        assert look_of(name)(pictures).shape == pictures.shape
    wrong = {"neon": "is a word of Ember's already", "moss": "no look 'moss'", "palette:red": "no palette"}
    for name, words in wrong.items():
        with pytest.raises(ConfigError, match=words):
            look_of(name)
    assert "neon" in STYLES
