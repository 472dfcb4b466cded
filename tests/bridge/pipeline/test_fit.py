"""Fitting frames to the model's size: geometry, channel order, memory."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.pipeline.fit import Fitter
from engine.frame import Frame, PixelFormat

RED, GREEN, BLUE = (250, 10, 20), (10, 250, 20), (10, 20, 250)


def thirds(width: int, height: int, format: PixelFormat = PixelFormat.RGB) -> Frame:
    """Red, green and blue columns of equal width."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 3], pixels[:, width // 3 : 2 * width // 3], pixels[:, 2 * width // 3 :] = RED, GREEN, BLUE
    if format is PixelFormat.BGRA:
        pixels = pixels[:, :, ::-1]
    if format is not PixelFormat.RGB:
        pixels = np.insert(pixels, 3, 77, axis=2)
    return Frame(np.ascontiguousarray(pixels), format)


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixel.astype(int) - colour) <= 2).all())


@pytest.mark.parametrize("format", list(PixelFormat))
@pytest.mark.parametrize("how", ["cover", "contain", "stretch"])
def test_where_the_colours_land(format, how):
    got = Fitter(96, 96).fit(thirds(192, 96, format), how)
    assert got.shape == (96, 96, 3) and got.dtype == np.uint8 and got.flags.c_contiguous
    middle = got[48]
    assert near(middle[48], GREEN)
    if how == "cover":  # 48 columns are cut off at each side
        assert near(middle[4], RED) and near(middle[91], BLUE) and near(middle[17], GREEN)
    elif how == "contain":
        assert (got[:23] == 0).all() and (got[73:] == 0).all()
        assert near(middle[28], RED) and near(middle[68], BLUE)
    else:
        assert near(got[1, 28], RED) and near(got[94, 68], BLUE)


def test_a_high_picture_is_cut_at_top_and_bottom():
    pixels = np.zeros((300, 100, 3), np.uint8)
    pixels[100:200] = 200
    assert (Fitter(64, 64).fit(Frame(pixels), "cover")[2:-2] == 200).all()
    assert (Fitter(64, 64).fit(Frame(pixels), "contain")[:, :20] == 0).all()


@pytest.mark.parametrize("size", [(96, 96), (48, 64)])
def test_mirror_swaps_left_and_right_and_nothing_else(size):
    fitter = Fitter(*size)
    frame = thirds(96, 96)
    np.testing.assert_array_equal(fitter.fit(frame, "stretch", True), fitter.fit(frame, "stretch")[:, ::-1])


def test_same_size_is_exact_and_costs_no_copy():
    frame = Frame(np.random.default_rng(1).integers(0, 255, (64, 48, 3), np.uint8))
    got = Fitter(48, 64).fit(frame)
    np.testing.assert_array_equal(got, frame.pixels)
    assert np.shares_memory(got, frame.pixels)


def test_results_stay_valid_after_the_scaler_moved_on():
    fitter = Fitter(64, 64)
    results = [fitter.fit(Frame(np.full((90, 120, 4), value, np.uint8), PixelFormat.RGBA)) for value in range(50)]
    gc.collect()
    assert [int(result.mean().round()) for result in results] == list(range(50))


def test_an_unknown_way_is_an_error():
    with pytest.raises(ValueError, match="cover, contain or stretch"):
        Fitter(16, 16).fit(thirds(30, 30), "zoom")


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(list(PixelFormat)),
    st.sampled_from(["cover", "contain", "stretch"]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_size_fits_any_size(width, height, to_width, to_height, format, how, mirror):
    frame = Frame(np.full((height, width, format.channels), 130, np.uint8), format)
    got = Fitter(to_width, to_height).fit(frame, how, mirror)
    assert got.shape == (to_height, to_width, 3) and got.flags.c_contiguous
    middle = got[(to_height - 1) // 2 : to_height // 2 + 1, (to_width - 1) // 2 : to_width // 2 + 1].astype(int)
    assert np.abs(middle - 130).max(axis=2).min() <= 1  # a picture one pixel wide lies on one side of an even middle
