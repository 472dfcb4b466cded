"""Conversion of channel orders and layouts: values, memory, and changes of size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.video.pixels import FourChannelConverter, UyvyConverter
from engine.frame import Frame, PixelFormat


@pytest.mark.parametrize("size", [(64, 48), (250, 131), (1, 1)])
def test_a_four_channel_copy_is_opaque_and_owns_its_memory(size):
    rng = np.random.default_rng(2)
    rgb = Frame(rng.integers(0, 255, (size[1], size[0], 3), np.uint8))
    wide, format = FourChannelConverter().copy(rgb)
    assert format is PixelFormat.RGBA and wide.flags.c_contiguous
    np.testing.assert_array_equal(wide[:, :, :3], rgb.pixels)
    assert (wide[:, :, 3] == 255).all()
    bgra = Frame(rng.integers(0, 255, (size[1], size[0], 4), np.uint8), PixelFormat.BGRA)
    wide, format = FourChannelConverter().copy(bgra)
    assert format is PixelFormat.BGRA and not np.shares_memory(wide, bgra.pixels)
    np.testing.assert_array_equal(wide, bgra.pixels)


@given(
    st.integers(1, 40), st.integers(1, 40), st.tuples(st.integers(16, 235), st.integers(16, 240), st.integers(16, 240))
)
@settings(max_examples=100, deadline=None)
def test_uyvy_is_converted_as_bt709(half_width, height, colour):
    """A colour below white, at any size: rows are not mixed."""
    luma, blue, red = colour
    packed = np.full((height, 2 * half_width, 2), (0, luma), np.uint8)
    packed[:, ::2, 0], packed[:, 1::2, 0] = blue, red
    packed[0] = (128, 235)
    got = UyvyConverter().rgb(packed)
    assert got.shape == (height, 2 * half_width, 3) and got.flags.c_contiguous
    y, b, r = (luma - 16) / 219 * 255, (blue - 128) / 224 * 255, (red - 128) / 224 * 255
    wanted = np.clip((y + 1.5748 * r, y - 0.1873 * b - 0.4681 * r, y + 1.8556 * b), 0, 255)
    assert np.abs(got[1:].astype(float) - wanted).max(initial=0.0) <= 5
    assert (got[0] >= 250).all()


def test_a_conversion_follows_a_change_of_size_and_owns_its_memory():
    converter = UyvyConverter()
    first = converter.rgb(np.full((48, 64, 2), (128, 235), np.uint8))
    second = converter.rgb(np.full((18, 32, 2), (128, 16), np.uint8))
    assert first.min() >= 250 and second.shape == (18, 32, 3) and second.max() <= 4
