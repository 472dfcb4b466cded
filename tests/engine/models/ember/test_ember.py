"""Ember: streaming codec, vocabulary and its documentation, exactly resumed training, and the effect of prompts."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.controls import Controls
from engine.errors import CheckpointError, WeightsMissingError
from engine.frame import Frame
from engine.models.ember.codec import EmberCodec
from engine.models.ember.specs import EMBER
from engine.models.ember.training.denoise import DenoiseTask
from engine.models.ember.training.footage.data import Painter, draw, random_prompt
from engine.models.ember.training.footage.marks import CELL
from engine.models.ember.training.footage.scenes import clip
from engine.models.ember.training.footage.styles import STYLES, apply
from engine.models.ember.training.loop import Trainer
from engine.models.ember.training.start import begin
from engine.models.ember.vocabulary import EMBER as SHIPPED
from engine.models.ember.vocabulary import FILLER, SYNONYMS, WORDS
from engine.models.ember.weights import WEIGHTS, read
from engine.models.ember.word_table import WordTable
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape
from engine.session import Session

CARD = Path(WEIGHTS).with_name("MODEL_CARD.md")
SIZE = 96


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A moving procedural scene, uint8 [frames, SIZE, SIZE, 3]."""
    return clip(np.random.default_rng(5), 29, SIZE)


# --- words -----------------------------------------------------------------------------------------------------


def test_every_word_has_an_operator_and_every_operator_a_word() -> None:
    assert set(WORDS) == set(STYLES)
    assert len(WORDS) == len(set(WORDS)) >= 40


def test_synonyms_map_to_words_and_hide_none() -> None:
    assert set(SYNONYMS.values()) <= set(WORDS)
    assert not set(SYNONYMS) & set(WORDS)
    assert not FILLER & (set(WORDS) | set(SYNONYMS))


def test_the_model_card_names_every_word() -> None:
    card = CARD.read_text(encoding="utf-8")
    assert [word for word in WORDS if f"`{word}`" not in card] == []


def test_prompts_are_read_as_written() -> None:
    assert SHIPPED.parse("A BLUE, neon pencil style!") == (["blue", "neon", "sketch"], [])
    assert SHIPPED.parse("neon zebra on ice") == (["neon", "ice"], ["zebra"])


def test_unknown_and_excess_words_are_reported() -> None:
    table = WordTable(2, 4)
    table.init_weights(torch.Generator().manual_seed(0))
    conditioning = table.encode("neon zebra fire ice")
    assert conditioning.unknown == ("zebra", "ice")
    assert torch.equal(conditioning.embedding[0], table.rows_NE[WORDS.index("neon")])
    assert not table.encode("").embedding.any()


# --- operators -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDS)
def test_operators_keep_shape_and_range(word: str, scene: np.ndarray) -> None:
    picture = torch.from_numpy(scene[:1].astype(np.float32) / 255).permute(0, 3, 1, 2)
    styled = apply(picture, [word])
    assert styled.shape == picture.shape
    assert float(styled.min()) >= -1e-3 and float(styled.max()) <= 1.001
    assert float((styled - picture).abs().mean()) > 0.02


@pytest.mark.parametrize("word", WORDS)
def test_textures_repeat_on_the_grid(word: str, scene: np.ndarray) -> None:
    """If a scene moves by one cell, its styled picture moves by one cell (except near the borders)."""
    picture = torch.from_numpy(scene[:1].astype(np.float32) / 255).permute(0, 3, 1, 2)
    picture = torch.nn.functional.interpolate(picture, 192)
    moved = torch.roll(picture, (CELL, CELL), (2, 3))
    a, b = torch.roll(apply(picture, [word]), (CELL, CELL), (2, 3)), apply(moved, [word])
    inner = slice(64, 128)
    assert torch.allclose(a[..., inner, inner], b[..., inner, inner], atol=1e-3)


def test_the_order_of_words_does_not_matter(scene: np.ndarray) -> None:
    picture = torch.from_numpy(scene[:1].astype(np.float32) / 255).permute(0, 3, 1, 2)
    assert torch.equal(apply(picture, ["blue", "neon", "sketch"]), apply(picture, ["sketch", "blue", "neon"]))


# --- codec -----------------------------------------------------------------------------------------------------


def test_streaming_codec_equals_one_call(scene: np.ndarray) -> None:
    codec = EmberCodec(EMBER.network.latent_channels, **EMBER.vae)
    read(codec, "codec")
    video = torch.from_numpy(scene[:17].astype(np.float32) / 127.5 - 1).permute(3, 0, 1, 2)[None]
    whole, pieces = (codec.encoder_state(1, SIZE, SIZE) for _ in range(2))
    latents = codec.encode(video, whole)
    streamed = [codec.encode(part, pieces) for part in video.split((5, 4, 8), dim=2)]
    assert latents.shape == (1, EMBER.network.latent_channels, 5, SIZE // 8, SIZE // 8)
    assert torch.equal(latents, torch.cat(streamed, dim=2))

    whole, pieces = (codec.decoder_state(1, SIZE, SIZE) for _ in range(2))
    pictures = codec.decode(latents, whole)
    streamed = [codec.decode(part, pieces) for part in latents.split((2, 1, 2), dim=2)]
    assert pictures.shape == video.shape
    assert torch.equal(pictures, torch.cat(streamed, dim=2))

    pieces.reset()
    assert torch.equal(codec.decode(latents, pieces), pictures)


def test_half_precision_encodes_and_decodes_the_same(scene: np.ndarray) -> None:
    """On some CPUs, bfloat16 convolutions with kernel and stride 8 are wrong, so the codec must not use them."""
    codec = EmberCodec(EMBER.network.latent_channels, **EMBER.vae)
    read(codec, "codec")
    group = torch.from_numpy(scene[1:5].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2).flatten(0, 1)[None]
    latent = codec.encode_group(group, group[:, :3])
    picture = codec.decode_group(latent, latent)
    codec.to(torch.bfloat16)
    half = codec.encode_group(group.bfloat16(), group[:, :3].bfloat16())
    assert (half - latent).norm() < 0.02 * latent.norm()
    assert (codec.decode_group(latent.bfloat16(), latent.bfloat16()) - picture).norm() < 0.03 * picture.norm()


# --- weights ---------------------------------------------------------------------------------------------------


def test_weights_are_small_and_errors_clear(tmp_path: Path) -> None:
    assert WEIGHTS.stat().st_size < 25e6
    codec = EmberCodec(EMBER.network.latent_channels, **EMBER.vae)
    with pytest.raises(WeightsMissingError, match="not at"):
        read(codec, "codec", tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(codec, "codec", damaged)
    with pytest.raises(CheckpointError, match="does not hold"):
        read(EmberCodec(EMBER.network.latent_channels + 1, **EMBER.vae), "codec")


# --- training --------------------------------------------------------------------------------------------------


def tiny_trainer(path: Path, clips: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Training of a very small network, with every part of a step in use."""
    monkeypatch.setattr("engine.models.ember.training.footage.data.MEMORY_FROM", 0)
    monkeypatch.setattr("engine.models.ember.training.footage.data.ROLLOUTS_FROM", 0)
    channels, look = 8, 2
    shape = DiTShape(dim=64, heads=8, layers=1, ffn=64, latent_channels=channels, text_dim=8, text_len=4, freq_dim=16)
    generator = torch.Generator().manual_seed(1)
    codec, dit, words = EmberCodec(channels, look), CausalDiT(shape), WordTable(4, 8)
    codec.init_weights(generator)
    begin(dit, codec.picture, generator)
    words.init_weights(generator)
    return Trainer(
        DenoiseTask(dit, words, codec, EMBER.schedule, Painter(clips, clips, 1, batch=2)),
        path,
        1,
        torch.device("cpu"),
    )


def test_training_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = np.stack([clip(np.random.default_rng(n), 9, 192) for n in range(2)])
    whole = tiny_trainer(tmp_path / "whole.pt", clips, monkeypatch)
    whole.run(steps=6, report=lambda _: None)
    tiny_trainer(tmp_path / "pieces.pt", clips, monkeypatch).run(steps=2, report=lambda _: None)
    resumed = tiny_trainer(tmp_path / "pieces.pt", clips, monkeypatch)
    assert resumed.number == 2
    resumed.run(steps=4, report=lambda _: None)
    for name, module in whole.task.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, resumed.task.modules[name].state_dict()[key]), f"{name}.{key}"
            assert torch.equal(whole.averages[name][key], resumed.averages[name][key]), f"average of {name}.{key}"


def test_batches_depend_on_their_number_alone(scene: np.ndarray) -> None:
    clips = scene[None]
    a, b, c = (draw(clips, 3, number, batch=2, frames=5, size=64) for number in (7, 7, 8))
    assert torch.equal(a.styled_BT3HW, b.styled_BT3HW) and a.prompts == b.prompts
    assert not torch.equal(a.content_BT3HW, c.content_BT3HW)


def test_prompts_of_training_cover_the_vocabulary() -> None:
    rng = random.Random(0)
    assert {word for _ in range(3000) for word in random_prompt(rng)} == set(WORDS)


# --- the stream ------------------------------------------------------------------------------------------------


def play(session: Session, scene: np.ndarray, prompts: list[tuple[int, str]], **settings: object) -> np.ndarray:
    """Feed the scene; the prompt changes at the given frames. Returns all output pictures as floats in 0..1."""
    made = []
    for number, picture in enumerate(scene):
        prompt = [text for first, text in prompts if first <= number][-1]
        session.feed(Frame(picture, pts_ns=number * 33_333_333, seq=number))
        if session.ready:
            controls = Controls(**{"prompt_1": prompt, "prompt_seconds": 0.0} | settings)  # type: ignore[arg-type]
            made += [frame.pixels for frame in session.step(controls)]
    return np.stack(made) / 255


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(Config(model="ember", width=SIZE, height=SIZE, device="cpu"))


def test_colour_follows_the_prompt_within_two_chunks(session: Session, scene: np.ndarray) -> None:
    session.reset()
    made = play(session, scene, [(0, "red"), (13, "blue")], strength=0.9, steps=1)
    redness = (made[..., 0] - made[..., 2]).mean((1, 2))
    assert redness[9:13].mean() > 0.1
    assert redness[17:21].mean() < -0.1  # frames of the second chunk after the change


def test_edges_follow_the_prompt_within_two_chunks(session: Session, scene: np.ndarray) -> None:
    session.reset()
    made = play(session, scene, [(0, "dream"), (13, "hatch")], strength=0.9, steps=2)
    edges = np.abs(np.diff(made.mean(-1), axis=2)).mean((1, 2))
    # A soft picture, then an engraver's lines. (Frames 9 to 12 take their second step under the new prompt already.)
    assert edges[17:21].mean() > 3 * edges[5:9].mean()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_every_number_of_steps_restyles_once(session: Session, scene: np.ndarray, steps: int) -> None:
    """With any number of steps the result is nearer to the negative than to the input, its negative in turn."""
    session.reset()
    made = play(session, scene, [(0, "negative")], strength=0.9, steps=steps)
    content = scene[len(made) - 1] / 255
    assert np.abs(made[-1] - (1 - content)).mean() < 0.8 * np.abs(made[-1] - content).mean()


def test_strength_zero_is_the_input_and_more_is_further(session: Session, scene: np.ndarray) -> None:
    distances = []
    for strength in (0.0, 0.3, 0.6, 0.9):
        session.reset()
        made = play(session, scene[:13], [(0, "fire")], strength=strength, steps=1)
        distances.append(float(np.abs(made[-1] - scene[12] / 255).mean()))
    assert distances[0] < 0.01
    assert distances == sorted(distances)


def test_every_tenth_of_the_strength_control_changes_the_picture(session: Session, scene: np.ndarray) -> None:
    changes = np.zeros(10)
    for word in ("neon", "gold", "oil", "vapor"):
        made = []
        for tenth in range(11):
            session.reset()
            made.append(play(session, scene[:13], [(0, word)], strength=tenth / 10, steps=1)[-1])
        changes += [np.abs(b - a).mean() for a, b in pairwise(made)]
    share = changes / changes.mean()
    assert share.min() > 0.4 and share.max() < 2.0, share.round(2)


def test_four_looks_in_equal_parts_are_as_strong_as_each_of_them(session: Session, scene: np.ndarray) -> None:
    content, ratios = scene[12] / 255, []
    for four in (
        ("neon", "gold", "oil", "vapor"),
        ("ink", "fire", "mono", "comic"),
        ("sunset", "pixel", "ice", "night"),
    ):
        alone = []
        for word in four:
            session.reset()
            made = play(session, scene[:13], [(0, word)], strength=1.0, steps=1)
            alone.append(np.abs(made[-1] - content).mean())
        session.reset()
        slots = {f"prompt_{n}": word for n, word in enumerate(four, 1)} | {f"weight_{n}": 1.0 for n in (1, 2, 3, 4)}
        made = play(session, scene[:13], [(0, four[0])], strength=1.0, steps=1, **slots)
        ratios.append(np.abs(made[-1] - content).mean() / np.mean(alone))
    assert 0.7 < np.mean(ratios) < 1.4, np.round(ratios, 2)


def test_without_a_prompt_the_picture_stays(session: Session, scene: np.ndarray) -> None:
    session.reset()
    made = play(session, scene[:13], [(0, "")], strength=0.4, steps=1)
    assert np.abs(made - scene[:13] / 255).mean() < 0.1


def test_unknown_words_are_reported_in_the_health(session: Session, scene: np.ndarray) -> None:
    session.reset()
    play(session, scene[:5], [(0, "neon zebra")], strength=0.9, steps=1)
    assert session.health.unknown_words == ("zebra",)
