"""The arithmetic of transparency: straight, premultiplied, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.video.alpha import both, opaque, premultiplied, rgba, straight
from bridge.video.pixels import FourChannelConverter
from engine.frame import Frame, PixelFormat

LEVELS = np.arange(256, dtype=np.uint8)
EVERY = np.stack(np.meshgrid(LEVELS, LEVELS))
"""Every colour with every alpha: uint8 [2, 256, 256]."""


def every() -> np.ndarray:
    """Every level with every alpha: uint8 [256, 256, 4]."""
    level, alpha = EVERY
    return rgba(np.ascontiguousarray(np.stack([level, level[::-1], level[:, ::-1]], -1)), np.ascontiguousarray(alpha))


def test_every_level_is_multiplied_by_every_alpha_and_rounded_to_the_nearest() -> None:
    picture = every()
    made = premultiplied(picture)
    wanted = np.rint(picture[..., :3].astype(float) * picture[..., 3:] / 255.0)
    assert (made[..., :3] == wanted).all() and (made[..., 3] == picture[..., 3]).all()
    assert not made[0, :, :3].any() and (made[255] == picture[255]).all(), "alpha 0 and 255 are exact"
    assert (made[..., :3] <= made[..., 3:]).all(), "no colour is larger than its alpha"


def test_what_was_premultiplied_is_the_same_after_the_way_back_and_forth() -> None:
    picture = every()
    made = premultiplied(picture)
    back = straight(made)
    assert (premultiplied(back) == made).all()
    error = np.abs(back[1:, :, :3].astype(int) - picture[1:, :, :3])
    assert (error <= np.ceil(127.5 / picture[1:, :, 3:])).all(), "no more is lost than the levels of that alpha hold"
    assert (back[255] == picture[255]).all()


def test_a_colour_that_is_larger_than_its_alpha_is_cut_off_and_none_is_wrong() -> None:
    back = straight(every())
    level, alpha = every()[..., :3].astype(int), every()[..., 3:].astype(int)
    wanted = np.minimum(255, (level * 255 + alpha // 2) // np.maximum(alpha, 1))
    assert (back[1:, :, :3] == wanted[1:]).all() and not back[0, :, :3].any()


def test_two_alphas_leave_their_product() -> None:
    one, other = (np.ascontiguousarray(plane) for plane in EVERY)
    made = both(one, other)
    assert (made == np.rint(one.astype(float) * other / 255.0)).all()
    assert (made[255] == one[255]).all() and not made[0].any()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_picture_of_any_size_gets_its_alpha_and_stays_unchanged(width, height, seed, premultiply) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    alpha = rng.integers(0, 256, (height, width), np.uint8)
    before = pixels.copy(), alpha.copy()
    made, kind = FourChannelConverter().copy(Frame(pixels, alpha=alpha, premultiply=premultiply))
    assert kind is PixelFormat.RGBA and made.flags.c_contiguous and not np.shares_memory(made, pixels)
    shown = np.rint(pixels.astype(float) * alpha[..., None] / 255.0) if premultiply else pixels
    assert (made[..., :3] == shown).all() and (made[..., 3] == alpha).all()
    assert (pixels == before[0]).all() and (alpha == before[1]).all()


def test_an_opaque_alpha_is_made_once_for_a_size_and_nobody_can_change_it() -> None:
    made = opaque(64, 48)
    assert made is opaque(64, 48) and made.shape == (48, 64) and (made == 255).all()
    with pytest.raises(ValueError, match="read-only"):
        made[0, 0] = 1
    whole = np.full((48, 64, 3), 9, np.uint8)
    got, _ = FourChannelConverter().copy(Frame(whole, alpha=made, premultiply=True))
    assert (got == (9, 9, 9, 255)).all()
    assert (both(made, made) == 255).all()


@pytest.mark.parametrize(
    ("pixels", "kind", "alpha"),
    [
        ((4, 6, 3), PixelFormat.RGB, np.zeros((6, 4), np.uint8)),
        ((4, 6, 3), PixelFormat.RGB, np.zeros((4, 6), np.float32)),
        ((4, 6, 3), PixelFormat.RGB, np.zeros((4, 6, 1), np.uint8)),
        ((4, 6, 4), PixelFormat.RGBA, np.zeros((4, 6), np.uint8)),
    ],
)
def test_an_alpha_that_does_not_fit_is_refused(pixels, kind, alpha) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Frame(np.zeros(pixels, np.uint8), kind, alpha=alpha)
