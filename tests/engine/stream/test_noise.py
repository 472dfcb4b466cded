"""Motion-aware noise, the timesteps at every strength, and seeded noise."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.models.registry import REGISTRY
from engine.models.spec import ModelSpec, Schedule
from engine.stream.noise import PAPER, RELEASED, Gaussian, NoiseController
from engine.stream.timesteps import MIN_STRENGTH, Steps, steps_for

STEPS = Steps((700, 500), 0.8, 0.1, 100)


def clip(frames: int, level: float = 0.0) -> torch.Tensor:
    return torch.full((3, frames, 8, 8), level)


def test_a_still_scene_keeps_the_released_numbers() -> None:
    controller = NoiseController(RELEASED, 8, 8, "cpu")
    assert controller.begin(clip(5), STEPS)[1] == 700
    for _ in range(50):
        share, first = controller.update(clip(4), STEPS)
        assert (float(share), int(first)) == (0.8, 700)


def test_full_motion_lowers_the_noise_by_the_depth_and_the_amount_says_how_much() -> None:
    for amount, low in ((1.0, 0.7), (0.5, 0.75), (0.0, 0.8)):
        controller = NoiseController(RELEASED, 8, 8, "cpu")
        controller.begin(clip(5), STEPS)
        for n in range(20):
            share, first = controller.update(clip(4, float(n % 2)), STEPS, amount)
        assert float(share) == pytest.approx(low, abs=1e-9)
        assert int(first) in (round(1000 * low) - 100, round(1000 * low) - 101)


def test_the_paper_counts_motion_over_a_window_and_keeps_the_first_step() -> None:
    controller = NoiseController(PAPER, 8, 8, "cpu")
    controller.begin(clip(5), STEPS)
    controller.update(clip(4, 1.0), STEPS)
    shares = []
    for _ in range(4):
        share, first = controller.update(clip(4, 1.0), STEPS)
        shares.append(float(share))
        assert int(first) == 700
    assert shares[0] < 0.72, "the jump is still in the window of eight frames"
    assert shares[-1] > 0.79


def test_reset_equals_new() -> None:
    controller = NoiseController(PAPER, 8, 8, "cpu")
    controller.begin(clip(5, 0.3), STEPS)
    controller.update(clip(4, 1.0), STEPS)
    controller.reset()
    assert all(not tensor.any() for tensor in controller.tensors().values())


def test_the_default_point_is_the_released_list() -> None:
    assert steps_for(Schedule(), 0.8, 4) == Steps((700, 500, 400, 200), 0.8, 0.1, 100)


@pytest.mark.parametrize("released", [(700, 500, 400, 200), (750, 550, 300), (650, 450), (900, 400, 250, 100)])
@pytest.mark.parametrize("strength", [0.9, 0.8, 0.75, 0.7, 0.6])
def test_a_row_with_another_list_or_strength_starts_where_the_release_does(
    released: tuple[int, ...], strength: float
) -> None:
    """The release: the list's own first timestep for the first chunk, then int(1000 share) - 100 whatever the list."""
    steps = steps_for(Schedule(steps=released, strength=strength), strength, len(released))
    assert (steps.timesteps, steps.noise, steps.depth, steps.drop) == (released, strength, 0.1, 100)
    controller = NoiseController(RELEASED, 8, 8, "cpu")
    assert controller.begin(clip(5), steps)[1] == released[0]
    before, share = 0.0, strength
    for level in (0.0, 0.02, 0.15, 0.15, 0.5, 0.5, 0.5, 0.4):
        motion = min(abs(level - before) / 0.2, 1.0)
        share, before = (strength - 0.1 * motion) * 0.9 + share * 0.1, level
        mixed, first = controller.update(clip(4, level), steps)
        assert float(mixed) == pytest.approx(share, abs=1e-7)
        assert abs(int(first) - (int(1000 * share) - 100)) <= (abs(1000 * share - round(1000 * share)) < 1e-3)


def test_drop_and_depth_belong_to_the_row_and_scale_with_the_strength() -> None:
    schedule = Schedule(steps=(600, 300), strength=0.8, drop=40, depth=0.2)
    assert steps_for(schedule, 0.8, 2) == Steps((600, 300), 0.8, 0.2, 40)
    assert steps_for(schedule, 0.4, 2) == Steps((300, 150), 0.4, 0.1, 20)


def told(steps: Steps, share: float) -> int:
    """The first timestep when this share of noise is mixed in."""
    if not steps.warp:
        return int(1000 * share) - steps.drop
    share = max(share, steps.least)
    return round(1000 * share / (steps.warp - (steps.warp - 1) * share))


@pytest.mark.parametrize("spec", REGISTRY.values(), ids=lambda spec: spec.name)
@pytest.mark.parametrize("strength", [n / 20 for n in range(21)])
def test_the_timesteps_of_every_model_decrease_at_every_strength_even_in_full_motion(
    spec: ModelSpec, strength: float
) -> None:
    steps = steps_for(spec.schedule, strength, len(spec.schedule.steps))
    still, moved = (told(steps, share) for share in (steps.noise, steps.noise - steps.depth))
    assert abs(still - steps.timesteps[0]) <= 1
    for first in (steps.timesteps[0], moved):
        assert all(a > b for a, b in pairwise((first, *steps.timesteps[1:])))


@given(
    st.floats(0, 1),
    st.integers(1, 4),
    st.sampled_from([Schedule(), Schedule(steps=(1000, 750, 500, 250), strength=1.0)]),
)
def test_the_list_decreases_at_every_strength_even_in_full_motion(
    strength: float, count: int, schedule: Schedule
) -> None:
    steps = steps_for(schedule, strength, count)
    moved = int(1000 * (steps.noise - steps.depth)) - steps.drop
    for first in (steps.timesteps[0], moved):
        levels = (first, *steps.timesteps[1:])
        assert all(a > b for a, b in pairwise(levels)), levels
        assert 0 < levels[-1] <= levels[0] <= 1000


@given(st.floats(MIN_STRENGTH, 1), st.floats(MIN_STRENGTH, 1), st.integers(1, 4))
def test_the_list_rises_with_the_strength(a: float, b: float, count: int) -> None:
    low, high = (steps_for(Schedule(), s, count) for s in sorted((a, b)))
    assert all(x <= y for x, y in zip(low.timesteps, high.timesteps, strict=True))
    assert low.noise <= high.noise


def test_more_steps_than_the_list_has_are_refused() -> None:
    with pytest.raises(ValueError, match="5 denoising steps"):
        steps_for(Schedule(), 0.8, 5)


def test_noise_is_gaussian_seeded_and_fresh_or_fixed() -> None:
    fresh, twin = (Gaussian((16, 32, 32), "cpu", steps=4, fixed=False, seed=4) for _ in range(2))
    a = fresh.draw(0, 2, 1)
    assert torch.equal(a, twin.draw(0, 2, 1))
    assert abs(float(a.mean())) < 0.02
    assert float(a.std()) == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(a, fresh.draw(0, 2, 1))
    fixed = Gaussian((16, 32, 32), "cpu", steps=4, fixed=True, seed=4)
    b = fixed.draw(1, 2, 3).clone()
    assert b.shape == (2, 16, 3, 32, 32)
    assert torch.equal(b, fixed.draw(1, 2, 3))
    assert not torch.equal(b[0], b[1])
    fixed.set_seed(5)
    assert not torch.equal(b, fixed.draw(1, 2, 3))
