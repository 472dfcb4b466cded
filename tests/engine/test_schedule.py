"""The SLO scheduler in simulated time: it holds the latency, does not oscillate, and is a pure function."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.planning.simulate import Machine, Show, shows, simulate, steady, table
from engine.schedule import Cost, Goal, Load, Plan, Policy, holds, observe, plan

GOAL = Goal(steps=4, latency_s=0.6)


@pytest.mark.parametrize("name, without, with_", table(), ids=[show.name for show in shows()])
def test_policy_never_misses_more_and_never_flaps(name, without, with_):
    assert with_.missed <= without.missed + 1e-9
    assert with_.changes <= 6
    assert with_.gap_s < 1.2  # the irregular source itself pauses for a second


def test_overload_costs_no_more_than_the_machine_lacks():
    machine = Machine(0.02, 0.045, 0.02)
    outcome = simulate(Show("x", steady(60, 30), machine, Goal(2, 0.4), 30), with_policy=True)
    capacity = 4 / machine.seconds(0.0, 1) / 60
    assert outcome.missed == pytest.approx(1 - capacity, abs=0.03)


def test_throttled_machine_recovers_all_steps():
    machine = Machine(0.005, 0.01, 0.01, lambda t: 6.0 if 10 <= t < 20 else 1.0)
    outcome = simulate(Show("x", steady(30, 60), machine, Goal(2, 0.4), 60), with_policy=True)
    assert outcome.steps > 1.5
    assert outcome.changes == 2


def test_first_chunk_runs_as_wanted():
    chosen, _ = plan(GOAL, Load(4, 0.1, 30), Cost(), Policy())
    assert chosen == Plan(rows=4, steps=4)


def test_one_slow_chunk_is_an_accident():
    cost, policy = Cost(), Policy()
    goal = Goal(steps=2, latency_s=0.4)
    for seconds in (0.05, 0.05, 0.7, 0.05, 0.05):
        chosen, policy = plan(goal, Load(4, 0.1, 30), cost, policy)
        cost = observe(cost, chosen, seconds)
        assert chosen.steps == 2


def test_lowered_steps_say_why():
    cost = Cost().measured(4, 0.5)
    chosen, _ = plan(GOAL, Load(8, 1.0, 30), cost, Policy())
    assert chosen.steps < 4 and "of 4 steps" in chosen.reason


def test_unbatched_steps_have_no_lag():
    goal = Goal(steps=2, latency_s=0.4, batch=False)
    cost = observe(Cost(), Plan(1, 2), 0.08)
    assert cost.seconds(1) == pytest.approx(0.04)
    chosen, _ = plan(goal, Load(4, 0.1, 15), cost, Policy())
    assert (chosen.steps, chosen.rows, chosen.late) == (2, 1, False)


loads = st.builds(Load, st.integers(0, 64), st.floats(0, 5), st.floats(0, 240))


@given(
    st.integers(1, 4),
    st.floats(0.05, 2.0),
    st.lists(st.tuples(loads, st.floats(1e-4, 3.0)), max_size=40),
)
def test_any_history_gives_a_valid_and_repeatable_plan(steps, latency, history):
    goal = Goal(steps=steps, latency_s=latency)
    cost, policy = Cost(), Policy()
    for load, seconds in history:
        chosen, after = plan(goal, load, cost, policy)
        assert (chosen, after) == plan(goal, load, cost, policy)
        assert 1 <= chosen.steps <= steps and chosen.rows == chosen.steps
        assert 0 <= chosen.skip <= max(0, load.waiting - goal.frames_per_latent)
        cost, policy = observe(cost, chosen, seconds), after


def test_what_holds_has_room_in_time_and_latency():
    """A chunk of four frames lasts 133 ms at 30 a second; two rows of the stream batch cost one chunk of lag."""
    goal = Goal(steps=2, latency_s=0.4, fps=30.0)
    for seconds, held in ((0.100, True), (0.106, True), (0.110, False), (0.140, False)):
        assert holds(goal, observe(Cost(), Plan(2, 2), seconds), 30.0) is held
    tight = Goal(steps=2, latency_s=0.35, fps=30.0)
    assert not holds(tight, observe(Cost(), Plan(2, 2), 0.100), 30.0), "133 + 133 + 100 ms are too late"
    assert holds(tight, observe(Cost(), Plan(2, 2), 0.050), 30.0)
    patient = Goal(steps=2, latency_s=0.5, fps=30.0)
    assert holds(patient, observe(Cost(), Plan(2, 2), 0.110), 24.0), "at a lower rate there is more time"
