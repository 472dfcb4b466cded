"""The successor of the shipped model, as far as it is built: its films, its autoencoder, and the decoder's training."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.models.ember.frame_codec import FrameCodec, Widths, principal_components
from engine.models.ember.training.drawing import Draft, Drawings, DrawTask, random_prompt, style_share
from engine.models.ember.training.evaluate import ghosts, wide_photograph
from engine.models.ember.training.footage.film import film
from engine.models.ember.training.footage.photographs import NAMES, moving, photograph
from engine.models.ember.training.looks.trial import open_restyle
from engine.models.ember.training.loop import Trainer
from engine.models.ember.training.losses import psnr
from engine.models.ember.training.player import Player
from engine.models.ember.training.pool import FilmPool
from engine.models.ember.training.successor import LOOK, SuccessorTask, begin, successor
from engine.models.ember.vocabulary import EMBER_2
from engine.models.ember.word_table import WordTable
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape

SMALL = Widths(eighth=8, quarter=8, context=4, half=8, kernels=4)


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    """Ten films, uint8 [10, 2, 162, 288, 3]."""
    return np.stack([film(np.random.default_rng((3, n)), 2, 162, 288) for n in range(10)])


@pytest.fixture(scope="module")
def codec(films: np.ndarray) -> FrameCodec:
    """An untrained codec with the films' components."""
    codec = FrameCodec(4, SMALL)
    codec.init_weights(torch.Generator().manual_seed(0))
    task = DrawTask(codec, Draft(EMBER_2, 4), Drawings(films, 1))
    task.start(films)
    return codec.eval().requires_grad_(False)


# --- films -----------------------------------------------------------------------------------------------------


def test_a_film_depends_on_its_generator_alone() -> None:
    first, again, other = (film(np.random.default_rng(n), 2, 54, 96) for n in (4, 4, 5))
    assert first.shape == (2, 54, 96, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_films_move_at_every_speed(films: np.ndarray) -> None:
    changes = np.abs(films[:, 1].astype(float) - films[:, 0]).mean((1, 2, 3))
    assert changes.min() < 6 and changes.max() > 15


def test_a_pool_of_films_is_rendered_in_parts(tmp_path: Path) -> None:
    pool = FilmPool("films", count=2, frames=1, size=64, seed=1)
    made = np.array(pool.make(tmp_path))
    assert made.shape == (2, 1, 36, 64, 3)
    holed = np.lib.format.open_memmap(pool.path(tmp_path), mode="r+")
    holed[1] = 0
    holed.flush()
    assert np.array_equal(pool.make(tmp_path), made)


# --- autoencoder -----------------------------------------------------------------------------------------------


def linear(codec: FrameCodec, frames_N3HW: Tensor) -> Tensor:
    unit = codec.encode_frames(frames_N3HW) / codec.scale[:, None, None]
    return codec.linear_frames(unit)


@pytest.mark.parametrize("speed", [0, 16, 32])
def test_components_keep_photographs_at_every_speed(codec: FrameCodec, speed: int) -> None:
    found = []
    for name in NAMES:
        video = moving(photograph(name, 256), 4, (speed, 0)) * 2 - 1
        found.append(float(psnr(linear(codec, video), video)))
    assert np.mean(found) > 28.0


def test_streaming_equals_one_call(codec: FrameCodec, films: np.ndarray) -> None:
    video = torch.from_numpy(np.concatenate(films[:7, :, :64, :96])[:13].astype(np.float32) / 127.5 - 1)
    video = video.permute(3, 0, 1, 2)[None]
    whole, pieces = (codec.encoder_state(1, 64, 96) for _ in range(2))
    latents = codec.encode(video, whole)
    streamed = [codec.encode(part, pieces) for part in video.split((5, 8), dim=2)]
    assert latents.shape == (1, codec.latent_channels, 4, 8, 12)
    assert torch.equal(latents, torch.cat(streamed, dim=2))
    whole, pieces = (codec.decoder_state(1, 64, 96) for _ in range(2))
    pictures = codec.decode(latents, whole)
    streamed = [codec.decode(part, pieces) for part in latents.split((2, 1, 1), dim=2)]
    assert pictures.shape == video.shape
    assert torch.equal(pictures, torch.cat(streamed, dim=2))


def test_frames_do_not_see_each_other(codec: FrameCodec, films: np.ndarray) -> None:
    frames = torch.from_numpy(films[:4, 0, :64, :96].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    look = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    together = codec.decode_frames(codec.encode_frames(frames), look)
    alone = [codec.decode_frames(codec.encode_frames(frame[None]), look) for frame in frames]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("height", [64, 72])
def test_mirrors_show_the_upper_left_quarter(codec: FrameCodec, films: np.ndarray, height: int) -> None:
    frame = torch.from_numpy(films[:1, 0, :height, :96].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    unit = codec.encode_frames(frame) / codec.scale[:, None, None]
    plain, made = codec.linear_frames(unit), codec.linear_frames(codec.mirrored(unit))
    assert torch.allclose(made, made.flip(-1), atol=1e-4) and torch.allclose(made, made.flip(-2), atol=1e-4)
    corner = (..., slice(0, 32), slice(0, 48))
    assert torch.allclose(made[corner], plain[corner], atol=1e-4)


def test_components_are_scaled_against_unit_noise(codec: FrameCodec) -> None:
    assert float(codec.scale.min()) == pytest.approx(9.0, rel=1e-3)
    assert torch.equal(codec.scale, codec.scale.sort(descending=True).values)


def test_flat_grey_stays_flat_grey() -> None:
    codec = FrameCodec(4, SMALL)
    principal_components(codec, torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1, 9.0)
    grey = torch.zeros(1, 3, 32, 32)
    assert float(linear(codec, grey).abs().max()) < 0.02


def test_the_ghost_index_sees_displaced_copies() -> None:
    video = moving(photograph("chelsea", 96), 9, (8, 0))
    blended = video.clone()
    blended[1:] = (video[1:] + video[:-1]) / 2
    assert ghosts(video, video) < 1e-6
    assert ghosts(blended, video) == pytest.approx(0.25, abs=0.01)
    soft = torch.nn.functional.avg_pool2d(video, 3, 1, 1)
    assert ghosts(soft, video) < 0.02


# --- training --------------------------------------------------------------------------------------------------


def test_the_share_of_the_style_rises_to_one() -> None:
    shares = style_share(torch.linspace(0, 1, 21))
    assert float(shares[0]) == 0 and float(shares[13:].min()) > 0.999
    assert bool((shares.diff() >= 0).all())


def test_prompts_cover_the_vocabulary() -> None:
    rng = random.Random(0)
    assert {word for _ in range(4000) for word in random_prompt(rng)} == set(EMBER_2.words)


def trainer(path: Path, films: np.ndarray) -> Trainer:
    generator = torch.Generator().manual_seed(1)
    codec, draft = FrameCodec(4, SMALL), Draft(EMBER_2, 4)
    codec.init_weights(generator)
    draft.init_weights(generator)
    task = DrawTask(codec, draft, Drawings(films, 1, prompts=2, pictures=1))
    task.start(films)
    return Trainer(task, path, 1, torch.device("cpu"))


def network_trainer(path: Path, films: np.ndarray) -> Trainer:
    """The second stage of a very small network, with every part of a step in use."""
    generator = torch.Generator().manual_seed(1)
    codec, draft = FrameCodec(LOOK, SMALL), Draft(EMBER_2, LOOK)
    codec.init_weights(generator)
    draft.init_weights(generator)
    DrawTask(codec, draft, Drawings(films, 1)).start(films)
    spec = successor(codec.scale)
    spec = replace(spec, network=replace(dit_shape(spec.network), dim=64, layers=1, ffn=64))
    dit, words = CausalDiT(dit_shape(spec.network)), WordTable(8, 64, EMBER_2)
    begin(dit, spec.schedule.signal, generator)
    words.init_weights(generator)
    return Trainer(SuccessorTask(spec, dit, words, codec, draft, films, 1, batch=2), path, 1, torch.device("cpu"))


def test_the_second_stage_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PIXELS_FROM", 2), ("EARLIER_SHARE", 0.5), ("SECOND_SHARE", 0.5)):
        monkeypatch.setattr(f"engine.models.ember.training.successor.{name}", value)
    films = np.stack([film(np.random.default_rng((3, n)), 8, 162, 288) for n in range(3)])
    whole = network_trainer(tmp_path / "whole.pt", films)
    whole.run(steps=5, report=lambda _: None)
    network_trainer(tmp_path / "pieces.pt", films).run(steps=3, report=lambda _: None)
    resumed = network_trainer(tmp_path / "pieces.pt", films)
    resumed.run(steps=2, report=lambda _: None)
    for name, module in whole.task.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, resumed.task.modules[name].state_dict()[key]), f"{name}.{key}"


@pytest.mark.parametrize("steps", [1, 2])
def test_the_successor_runs_in_the_stream(codec: FrameCodec, films: np.ndarray, steps: int) -> None:
    """An untrained network changes nothing, so that a low strength gives the components' own picture."""
    whole = FrameCodec(LOOK, SMALL)
    whole.init_weights(torch.Generator().manual_seed(0))
    whole.decoder.load_state_dict({k: torch.zeros_like(v) for k, v in whole.decoder.state_dict().items()})
    with torch.no_grad():
        for name in ("basis", "spread", "scale", "signs"):
            getattr(whole, name).copy_(getattr(codec, name))
        whole.decoder.colours.weight.copy_(torch.eye(12)[:, :, None, None])
        whole.decoder.mixture[-1].bias.fill_(-20.0)
    spec = successor(codec.scale)
    dit, words = CausalDiT(dit_shape(spec.network)), WordTable(8, 64, EMBER_2)
    begin(dit, spec.schedule.signal, torch.Generator().manual_seed(0))
    torch.nn.init.zeros_(dit.head.head.weight)
    words.init_weights()
    player = Player(dit.eval(), words.eval(), whole.eval(), spec=spec)
    video = torch.from_numpy(films[:9, 0, :64, :96].astype(np.float32) / 255).permute(0, 3, 1, 2)
    made = player.play(video, "", 0.05, steps)
    assert made.shape == video.shape
    assert float(psnr(made * 2 - 1, linear(codec, video * 2 - 1))) > 25


def test_drawing_is_learned_and_resumes_exactly(tmp_path: Path, films: np.ndarray) -> None:
    whole = trainer(tmp_path / "whole.pt", films)
    whole.run(steps=5, report=lambda _: None)
    trainer(tmp_path / "pieces.pt", films).run(steps=2, report=lambda _: None)
    resumed = trainer(tmp_path / "pieces.pt", films)
    assert resumed.number == 2
    resumed.run(steps=3, report=lambda _: None)
    for name, module in whole.task.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, resumed.task.modules[name].state_dict()[key]), f"{name}.{key}"


# --- evaluation ------------------------------------------------------------------------------------------------


def untrained(path: Path, codec: FrameCodec, *, network: bool) -> Path:
    """A checkpoint of one of the stages, with untrained weights."""
    generator = torch.Generator().manual_seed(0)
    whole = FrameCodec(LOOK)
    whole.init_weights(generator)
    for name, buffer in codec.named_buffers():
        whole.get_buffer(name).copy_(buffer)
    averages = {"codec": whole.state_dict()}
    if network:
        spec = successor(whole.scale)
        dit, words = CausalDiT(dit_shape(spec.network)), WordTable(8, 64, EMBER_2)
        begin(dit, spec.schedule.signal, generator)
        words.init_weights(generator)
        averages |= {"dit": dit.state_dict(), "words": words.state_dict()}
    else:
        draft = Draft(EMBER_2, LOOK)
        draft.init_weights(generator)
        averages["draft"] = draft.state_dict()
    torch.save({"averages": averages}, path)
    return path


@pytest.mark.parametrize("network", [False, True])
def test_checkpoints_of_both_stages_restyle_clips(tmp_path: Path, codec: FrameCodec, network: bool) -> None:
    restyle = open_restyle(untrained(tmp_path / "stage.pt", codec, network=network))
    clip = moving(wide_photograph("coffee", 32, 64), 5, (2, 1))
    with torch.inference_mode():
        made, other = restyle(clip, "neon", 0.7, 1), restyle(clip, "woodblock", 0.7, 1)
    assert made.shape == clip.shape and 0 <= float(made.min()) <= float(made.max()) <= 1
    assert float((made - other).abs().mean()) > 1e-3
