"""The shapes: exact values, ranges, and that a random shape has the same value in whatever order it is asked for."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.control.modulation.shapes import SHAPES, Follower, Slew, envelope, hashed, smooth

POSITIONS = st.floats(-1e7, 1e7)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sine", [0.0, 1.0, 0.0, -1.0, 0.0]),
        ("triangle", [0.0, 1.0, 0.0, -1.0, 0.0]),
        ("up", [-1.0, -0.5, 0.0, 0.5, -1.0]),
        ("down", [1.0, 0.5, 0.0, -0.5, 1.0]),
        ("square", [1.0, 1.0, -1.0, -1.0, 1.0]),
    ],
)
@pytest.mark.parametrize("cycle", [0, 3, -2, 40_000])
def test_shapes_at_the_quarters_of_a_cycle(name: str, values: list[float], cycle: int) -> None:
    found = [SHAPES[name](cycle + quarter / 4.0, 0) for quarter in range(5)]
    assert found == pytest.approx(values, abs=1e-9)


def test_a_triangle_is_straight() -> None:
    assert SHAPES["triangle"](0.125, 0) == pytest.approx(0.5)
    assert SHAPES["triangle"](0.375, 0) == pytest.approx(0.5)
    assert SHAPES["triangle"](0.625, 0) == pytest.approx(-0.5)


@given(POSITIONS, st.integers(0, 999_999))
def test_every_shape_stays_in_its_range(position: float, seed: int) -> None:
    for shape in SHAPES.values():
        assert -1.0 <= shape(position, seed) <= 1.0


@pytest.mark.parametrize("name", ["random", "hold", "drunk"])
def test_random_shapes_do_not_depend_on_the_order_in_which_they_are_asked(name: str) -> None:
    shape, positions = SHAPES[name], [n / 7.0 for n in range(-700, 700)]
    forwards = {position: shape(position, 5) for position in positions}
    random.Random(1).shuffle(positions)
    assert {position: shape(position, 5) for position in positions} == forwards
    assert [shape(n + 0.3, 5) for n in range(50)] != [shape(n + 0.3, 6) for n in range(50)]


def test_random_numbers_fill_the_range_evenly_and_do_not_depend_on_each_other() -> None:
    numbers = [hashed(3, n) for n in range(4000)]
    assert abs(statistics.mean(numbers)) < 0.03
    assert statistics.pvariance(numbers) == pytest.approx(1.0 / 3.0, abs=0.02)
    assert min(numbers) < -0.99 and max(numbers) > 0.99
    assert abs(statistics.correlation(numbers[:-1], numbers[1:])) < 0.05
    assert abs(statistics.correlation(numbers, [hashed(4, n) for n in range(4000)])) < 0.05


def test_hold_holds_and_random_glides() -> None:
    assert len({SHAPES["hold"](3 + n / 10.0, 1) for n in range(10)}) == 1
    steps = [SHAPES["random"](n / 100.0, 1) for n in range(1000)]
    assert max(abs(b - a) for a, b in itertools.pairwise(steps)) < 0.04
    assert SHAPES["random"](7.0, 1) == SHAPES["hold"](7.5, 1) == hashed(1, 7)


def test_drunk_wanders_slowly_and_far() -> None:
    values = [SHAPES["drunk"](float(n), 2) for n in range(2000)]
    assert max(abs(b - a) for a, b in itertools.pairwise(values)) <= 10.0 / 31.0 + 1e-12
    assert max(values) > 0.6 and min(values) < -0.6
    assert statistics.correlation(values[:-1], values[1:]) > 0.8, "a step is small against the way"


def test_an_envelope_rises_falls_and_joins_the_next_hit() -> None:
    assert envelope(-0.1, 0.01, 0.3) == -1.0
    assert envelope(0.0, 0.01, 0.3) == -1.0
    assert envelope(0.005, 0.01, 0.3) == pytest.approx(0.0)
    assert envelope(0.01, 0.01, 0.3) == 1.0
    assert envelope(0.31, 0.01, 0.3) == pytest.approx(2.0 / math.e - 1.0)
    assert envelope(0.5 - 1e-9, 0.01, 0.3, 0.5) == pytest.approx(envelope(0.0, 0.01, 0.3, 0.5), abs=1e-6)


def test_smooth_begins_and_ends_gently() -> None:
    assert [smooth(share) for share in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert smooth(0.01) < 0.001 and smooth(0.99) > 0.999


def test_a_slew_is_a_limit_whatever_the_times_at_which_it_is_asked() -> None:
    for step in (0.001, 0.01, 0.04):
        slew, at = Slew(0.5), 0.0
        slew.limited(-1.0, at)
        while at < 2.0 - 1e-9:
            at += step
            value = slew.limited(1.0, at)
        assert value == pytest.approx(0.0, abs=1e-6)
    assert slew.limited(1.0, at - 1.0) == value, "a time that is over changes nothing"
    assert slew.limited(1.0, at + 100.0) == 1.0
    assert Slew(math.inf).limited(0.7, 0.0) == 0.7


@pytest.mark.parametrize("step", [0.001, 0.008, 0.04])
def test_a_follower_rises_and_falls_at_its_own_pace_however_often_it_is_fed(step: float) -> None:
    follower, at = Follower(0.04, 0.4), 0.0
    follower.fed(0.0, at)
    for _ in range(round(0.04 / step)):
        at += step
        value = follower.fed(1.0, at)
    assert value == pytest.approx(1.0 - 1.0 / math.e)
    follower.fed(1.0, at + 10.0)
    at += 10.0
    for _ in range(round(0.4 / step)):
        at += step
        value = follower.fed(0.0, at)
    assert value == pytest.approx(1.0 / math.e, rel=1e-3)
    assert Follower(0.0, 0.4).fed(0.3, 1.0) == 0.3
