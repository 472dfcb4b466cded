"""The test pictures: of any size, the same for the same number, moving."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from bridge.video.synthetic.pattern import PATTERNS

FPS = Fraction(30)


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 7), (17, 240), (333, 31), (512, 288), (721, 1283)])
@pytest.mark.parametrize("name", PATTERNS)
def test_a_picture_has_any_size_and_is_its_own(name: str, size: tuple[int, int]) -> None:
    width, height = size
    first = PATTERNS[name](40, width, height, FPS)
    assert first.shape == (height, width, 3) and first.dtype == np.uint8
    kept = first.copy()
    again = PATTERNS[name](40, width, height, FPS)
    np.testing.assert_array_equal(again, kept)
    again[:] = 0  # whoever gets a picture may write on it
    np.testing.assert_array_equal(PATTERNS[name](40, width, height, FPS), kept)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_picture_moves(name: str) -> None:
    first, later = (PATTERNS[name](number, 320, 180, FPS).astype(int) for number in (100, 130))
    assert np.abs(first - later).mean() > 0.5


def test_the_dance_looks_the_same_at_every_size() -> None:
    small, large = (PATTERNS["dance"](77, 16 * n, 9 * n, FPS) for n in (20, 80))
    reduced = large.reshape(180, 4, 320, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - small).mean() < 2.0
