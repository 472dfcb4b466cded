"""From masks to mattes: thresholds, growth, feather, refinement, and two pictures put together."""

from __future__ import annotations

import cv2
import numpy as np

from bridge.pipeline.mask import compose, matte


def disc(radius: int, size: int = 120) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size]
    return (np.hypot(x - size // 2, y - size // 2) <= radius).astype(np.uint8) * 255


def radius_of(mask: np.ndarray) -> float:
    return float(np.sqrt(np.count_nonzero(mask > 127) / np.pi))


def test_the_step_is_at_the_threshold_and_as_wide_as_the_softness() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    made = matte.shaped(ramp, 0.5, 0.2)[0]
    assert (made[:102] == 0).all() and (made[153:] == 255).all() and abs(int(made[127]) - 127) < 8
    assert set(np.unique(matte.shaped(ramp, 0.7, 0.0))) == {0, 255}
    assert (matte.shaped(ramp, 0.7, 0.0)[0, 180:] == 255).all() and (matte.shaped(ramp, 0.7, 0.0)[0, :177] == 0).all()


def test_it_grows_and_shrinks_by_pixels() -> None:
    for pixels in (-9, -2, 0, 4, 11):
        assert abs(radius_of(matte.grown(disc(30), pixels)) - (30 + pixels)) < 1.0, pixels


def test_feather_makes_the_edge_soft_over_its_distance_and_leaves_the_middle_of_it() -> None:
    made = matte.feathered(disc(30), 12.0)
    assert made[60, 60] == 255 and made[60, 5] == 0
    across = made[60, 60:110]
    soft = np.count_nonzero((across > 12) & (across < 243))
    assert 8 <= soft <= 20 and abs(int(np.argmax(across < 128)) - 30) <= 2


def test_refinement_moves_the_edge_to_the_edge_of_the_picture_and_keeps_what_is_sure() -> None:
    truth = centred(0.25, 640)
    full = np.where(truth > 0, 200, 40).astype(np.uint8)
    guide = cv2.resize(full, (160, 160), interpolation=cv2.INTER_AREA)
    for share, margin in ((0.25, matte.TRACES), (0.25, matte.UNSURE), (0.24, matte.UNSURE)):
        coarse = cv2.resize(centred(share, 48), (160, 160), interpolation=cv2.INTER_LINEAR)
        plain, fine = matte.stretched(coarse, 640, 640), matte.refined(coarse, guide, margin, full)
        wrong = [float(np.mean(np.abs(made.astype(int) - truth))) for made in (plain, fine)]
        assert wrong[1] < 0.7 * wrong[0], (share, margin, wrong)
        assert fine[320, 320] == 255 and not fine[:60].any(), "far from the edge it is 0 and 255 to the bit"


def centred(share: float, size: int) -> np.ndarray:
    """A disc in the middle; `share` of the size is its radius."""
    y, x = np.mgrid[0:size, 0:size] - (size - 1) / 2
    return (np.hypot(x, y) <= share * size).astype(np.uint8) * 255


def test_pixels_outside_are_those_of_the_one_picture_and_inside_those_of_the_other() -> None:
    noise = np.random.default_rng(0)
    outside, inside = noise.integers(0, 256, (2, 90, 160, 3), np.uint8)
    shape = np.zeros((90, 160), np.uint8)
    shape[20:60, 30:100] = 255
    shape[20:60, 100] = 128
    before = outside.copy()
    made = compose.blended(outside, inside, shape)
    assert (outside == before).all(), "neither picture is changed"
    assert (made[shape == 0] == outside[shape == 0]).all() and (made[shape == 255] == inside[shape == 255]).all()
    half = (outside[20:60, 100].astype(float) + inside[20:60, 100]) / 2
    assert np.abs(made[20:60, 100] - half).max() <= 1.5
    assert (compose.blended(outside, inside, np.zeros_like(shape)) == outside).all()


def test_shares_at_the_ends_are_the_pictures_themselves() -> None:
    dry, wet = np.full((4, 4, 3), 10, np.uint8), np.full((4, 4, 3), 110, np.uint8)
    assert compose.mixed(dry, wet, 0.0) is dry and compose.mixed(dry, wet, 1.0) is wet
    assert (compose.mixed(dry, wet, 0.25) == 35).all()
