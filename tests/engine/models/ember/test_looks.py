"""The successor's vocabulary and its style operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.models.ember.training.footage.scenes import clip
from engine.models.ember.training.looks.flow import along, flow_of
from engine.models.ember.training.looks.pattern import PERIOD
from engine.models.ember.training.looks.table import LOOKS, apply
from engine.models.ember.vocabulary import EMBER, EMBER_2, FILLER, NEW_WORDS
from engine.models.ember.word_table import WordTable


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """A procedural scene, [1, 3, 192, 256] in 0..1."""
    frame = clip(np.random.default_rng(5), 1, 256)[0, :192]
    return torch.from_numpy(frame.astype(np.float32) / 255).permute(2, 0, 1)[None]


# --- words -----------------------------------------------------------------------------------------------------


def test_every_word_of_the_successor_has_an_operator() -> None:
    assert set(EMBER_2.words) == set(LOOKS)
    assert len(EMBER_2.words) == len(set(EMBER_2.words)) == len(EMBER.words) + 10


def test_the_shipped_weights_know_no_new_word() -> None:
    assert len(WordTable(8, 4).rows_NE) == len(EMBER.words)
    assert not set(NEW_WORDS) & set(EMBER.words)
    assert EMBER.parse("woodblock aurora neon") == (["neon"], ["woodblock", "aurora"])


def test_words_of_the_shipped_model_keep_their_rows_and_synonyms() -> None:
    assert EMBER_2.words[: len(EMBER.words)] == EMBER.words
    kept = {synonym: word for synonym, word in EMBER.synonyms.items() if synonym not in NEW_WORDS}
    assert kept.items() <= EMBER_2.synonyms.items()


def test_synonyms_of_the_successor_map_to_words_and_hide_none() -> None:
    assert set(EMBER_2.synonyms.values()) <= set(EMBER_2.words)
    assert not set(EMBER_2.synonyms) & set(EMBER_2.words)
    assert not FILLER & (set(EMBER_2.words) | set(EMBER_2.synonyms))


def test_a_word_counts_once() -> None:
    assert EMBER_2.parse("blue stained glass") == (["blue", "glass"], [])
    assert EMBER.parse("moonlight night") == (["night"], [])


# --- operators -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", LOOKS)
def test_operators_keep_shape_and_range(word: str, picture: Tensor) -> None:
    styled = apply(picture, [word])
    assert styled.shape == picture.shape
    assert float(styled.min()) >= -1e-3 and float(styled.max()) <= 1.001
    assert float((styled - picture).abs().mean()) > 0.02


def displacement(word: str, picture: Tensor, right: int, down: int) -> float:
    """Mean difference between the styled picture, moved, and the moved picture, styled; without the borders."""
    styled = torch.roll(apply(picture, [word]), (down, right), (2, 3))
    moved = apply(torch.roll(picture, (down, right), (2, 3)), [word])
    return float((styled - moved)[..., 72:120, 72:184].abs().mean())


@pytest.mark.parametrize("word", [word for word, look in LOOKS.items() if look.moves])
def test_textures_that_move_go_with_the_picture(word: str, picture: Tensor) -> None:
    assert displacement(word, picture, 5, 3) < 2e-3


@pytest.mark.parametrize("word", [word for word, look in LOOKS.items() if not look.moves and word != "kaleidoscope"])
def test_textures_that_stand_still_repeat(word: str, picture: Tensor) -> None:
    assert displacement(word, picture, PERIOD, PERIOD) < 2e-3
    assert displacement(word, 0.5 * picture, 5, 2) > 5e-4


def test_the_kaleidoscope_mirrors_the_picture_about_its_centre(picture: Tensor) -> None:
    made = apply(picture, ["kaleidoscope"])
    assert torch.equal(made, made.flip(-1)) and torch.equal(made, made.flip(-2))


def test_every_word_has_a_look_of_its_own(picture: Tensor) -> None:
    """Drawings and paints differ from each other, so that they can be told apart at first sight."""
    styled = {word: apply(picture, [word]) for word in LOOKS if LOOKS[word].stage < 2}
    pairs = [(a, b) for a in styled for b in styled if a < b]
    nearest = min(pairs, key=lambda pair: float((styled[pair[0]] - styled[pair[1]]).abs().mean()))
    assert float((styled[nearest[0]] - styled[nearest[1]]).abs().mean()) > 0.04, nearest


def test_the_order_of_words_does_not_matter(picture: Tensor) -> None:
    assert torch.equal(apply(picture, ["blue", "neon", "oil"]), apply(picture, ["oil", "blue", "neon"]))


# --- directions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 30, 75, 120])
def test_directions_follow_stripes(degrees: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    angle = np.radians(degrees)
    across = columns * float(-np.sin(angle)) + rows * float(np.cos(angle))
    stripes = (0.5 + 0.4 * torch.cos(across * 0.6)).expand(1, 3, -1, -1)
    flow = flow_of(stripes)
    along_stripes = flow.x * float(np.cos(angle)) + flow.y * float(np.sin(angle))
    assert float(along_stripes[..., 16:48, 16:48].abs().min()) > 0.98
    smoothed = along(stripes, flow, 5)
    assert float((smoothed - stripes)[..., 16:48, 16:48].abs().max()) < 0.05


def test_the_card_of_the_shipped_model_promises_no_word_that_it_lacks() -> None:
    card = Path(__file__).parents[4].joinpath("engine/models/ember/MODEL_CARD.md").read_text("utf-8")
    assert [word for word in NEW_WORDS if f"`{word}`" in card] == []
