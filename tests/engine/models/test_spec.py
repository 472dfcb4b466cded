"""What a row of the model table says about strength."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models import registry
from engine.models.ember.specs import EMBER

PLAIN = replace(EMBER, strength_curve=())


@pytest.mark.parametrize("name", sorted(registry.REGISTRY))
def test_a_curve_rises_over_eleven_numbers_and_begins_at_the_input(name: str) -> None:
    spec = registry.get(name)
    if not spec.strength_curve:
        assert [spec.strength_of(value) for value in (0.0, 0.37, 1.0)] == [0.0, 0.37, 1.0]
        return
    assert len(spec.strength_curve) == 11 and spec.strength_curve[0] == 0.0 and spec.strength_curve[-1] <= 1.0
    assert all(a < b for a, b in pairwise(spec.strength_curve))


@given(st.floats(0, 1))
def test_control_and_strength_are_inverse_to_each_other(control: float) -> None:
    for spec in (EMBER, PLAIN):
        assert spec.control_of(spec.strength_of(control)) == pytest.approx(control, abs=1e-9)


def test_the_tenths_of_the_control_are_the_numbers_of_the_curve() -> None:
    assert [EMBER.strength_of(n / 10) for n in range(11)] == pytest.approx(EMBER.strength_curve)
    assert EMBER.strength_of(0.95) == pytest.approx((EMBER.strength_curve[9] + EMBER.strength_curve[10]) / 2)
    assert (EMBER.control_of(-0.1), EMBER.control_of(1.0)) == (0.0, 1.0), "shares of noise beyond the curve's"
