"""Luma key and chroma key on colours that are known."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.pipeline.mask import compose, keys
from bridge.pipeline.mask.controls import color_of
from engine.errors import ConfigError

GREEN = (0, 177, 64)


def patch(*colour: int) -> np.ndarray:
    return np.full((9, 9, 3), colour, np.uint8)


def test_luma_takes_what_is_between_and_fades_beside_it() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (2, 1))
    made = keys.luma(ramp, 0.4, 0.8, 0.1)[0]
    assert (made[103:204] == 255).all(), "inside"
    assert (made[:76] == 0).all() and (made[231:] == 0).all(), "outside"
    assert (np.diff(made[76:103].astype(int)) >= 0).all() and 100 < made[89] < 160, "fades"
    assert set(np.unique(keys.luma(ramp, 0.4, 0.8, 0.0))) == {0, 255}, "or not at all"


def test_chroma_leaves_out_the_key_colour_however_bright() -> None:
    key = color_of("#00b140")
    assert keys.chroma_distance(patch(*GREEN), key).max() < 1e-3
    half = keys.chroma_distance(patch(0, 89, 32), key).max()
    assert half < 0.5, "a shadow on the screen"
    for other in ((255, 255, 255), (0, 0, 0), (220, 170, 140), (200, 30, 30), (30, 60, 200)):
        assert keys.chroma_distance(patch(*other), key).min() > 0.5, other
    grey, pure = keys.chroma_distance(patch(90, 90, 90), (0, 255, 0)), keys.chroma_distance(patch(0, 255, 0), (0, 0, 0))
    assert abs(grey.mean() - 1.0) < 1e-3 and abs(pure.mean() - 1.0) < 1e-3, "1 is from grey to pure green"


def test_chroma_matte_and_spill_meet_at_similarity() -> None:
    distance = np.linspace(0.0, 1.0, 101, dtype=np.float32)[None]
    matte = keys.chroma(distance, 0.3, 0.2)[0]
    assert (matte[:31] == 0).all() and (matte[51:] == 255).all() and 100 < matte[40] < 150
    spill = keys.spill(distance, 0.3, 0.4)[0]
    assert (spill[:31] == 255).all() and (spill[72:] == 0).all() and 100 < spill[50] < 150


def test_spill_takes_colour_away_and_keeps_brightness() -> None:
    pixels = patch(60, 140, 70)
    share = np.zeros((9, 9), np.uint8)
    share[:, 4:] = 255
    made = compose.without_color(pixels, share)
    assert (made[:, :4] == pixels[:, :4]).all()
    grey = made[0, 6]
    assert len(set(grey.tolist())) == 1 and abs(int(grey[0]) - 108) <= 1


@pytest.mark.parametrize("text", ["", "green", "#12345", "#1234567", "#00b14g"])
def test_what_is_no_colour_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match="#00b140"):
        color_of(text)


def test_colours_are_read_with_and_without_a_hash() -> None:
    assert color_of("#00B140") == color_of(" 00b140 ") == GREEN
