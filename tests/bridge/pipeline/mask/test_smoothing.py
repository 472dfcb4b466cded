"""Masks over time: unsure places are averaged, sure ones follow at once, and a jump is held."""

from __future__ import annotations

import numpy as np

from bridge.pipeline.mask.region import Region
from bridge.pipeline.mask.smoothing import HOLD_NS, UNSURE, Smoother
from bridge.pipeline.mask.timeline import KEPT, MaskTimeline, PersonMask

PERIOD = 33_000_000


def mask(number: int, values: np.ndarray, region: Region = Region()) -> PersonMask:  # noqa: B008 - frozen
    return PersonMask((number + 1) * PERIOD, values, region)


def person(height: int, sure: int = 255) -> np.ndarray:
    values = np.zeros((40, 60), np.uint8)
    values[:height, 10:40] = sure
    return values


def test_how_unsure_is_the_square_of_the_binary_entropy() -> None:
    assert UNSURE[0] < 1e-6 and UNSURE[255] < 1e-6
    assert abs(UNSURE[127] - 1.0) < 1e-3
    assert abs(UNSURE[64] - (0.8129**2)) < 0.01, "the entropy at a quarter is 0.811 bits"


def test_sure_places_follow_at_once_and_unsure_ones_lag() -> None:
    smoother = Smoother()
    assert smoother.next(mask(0, np.full((4, 4), 255, np.uint8)), 0.9) is not None
    values = np.full((4, 4), 255, np.uint8)
    values[0] = 128
    made = smoother.next(mask(1, values), 0.9)
    assert made is not None and (made.values[1:] == 255).all()
    assert (np.abs(made.values[0].astype(int) - (128 + 0.9 * 127)) <= 1).all()
    values[:] = 0
    values[1] = 255
    smoother.forget()
    first = smoother.next(mask(2, values), 0.9)
    assert first is not None and (first.values == values).all(), "nothing is left after it was forgotten"


def test_no_smoothing_changes_nothing() -> None:
    smoother = Smoother()
    noise = np.random.default_rng(1)
    for number in range(4):
        values = noise.integers(0, 256, (6, 6), np.uint8)
        made = smoother.next(mask(number, values), 0.0)
        assert made is not None and (made.values == values).all()


def test_a_jump_is_held_for_a_moment_and_then_believed() -> None:
    smoother = Smoother()
    assert smoother.next(mask(0, person(30)), 0.5) is not None
    number, held = 1, 0
    while smoother.next(mask(number, person(5)), 0.5) is None:
        number, held = number + 1, held + 1
    assert abs(held * PERIOD - HOLD_NS) <= PERIOD
    assert smoother.next(mask(number + 1, person(5)), 0.5) is not None, "the new size is the size now"


def test_a_flash_of_one_frame_is_not_shown() -> None:
    smoother = Smoother()
    assert smoother.next(mask(0, person(30)), 0.5) is not None
    assert smoother.next(mask(1, np.zeros((40, 60), np.uint8)), 0.5) is None
    again = smoother.next(mask(2, person(30)), 0.5)
    assert again is not None and (again.values == person(30)).all()


def test_somebody_who_enters_is_taken_at_once_and_so_is_another_region() -> None:
    smoother = Smoother()
    assert smoother.next(mask(0, np.zeros((40, 60), np.uint8)), 0.5) is not None
    assert smoother.next(mask(1, person(30)), 0.5) is not None
    part = Region(0.0, 0.0, 0.5, 1.0)
    assert smoother.next(mask(2, person(3), part), 0.5) is not None


def test_the_timeline_finds_the_nearest_and_is_bounded() -> None:
    masks = MaskTimeline()
    for number in range(3 * KEPT):
        masks.add(mask(number, person(1)))
    last = 3 * KEPT * PERIOD
    found = masks.at(last + 10_000_000)
    assert found is not None and found.captured_ns == last
    assert masks.at(PERIOD) is None, "the oldest are gone"
    assert masks.at(last + 2_000_000_000) is None, "too long ago"
    masks.forget()
    assert masks.at(last) is None
