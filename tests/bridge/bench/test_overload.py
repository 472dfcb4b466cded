"""Engines that are three times too slow, in simulated time: frames are dropped, never queued, and it is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.bench.overload import (
    PERIOD_S,
    WARM_UP,
    Machine,
    Settings,
    Show,
    all_settings,
    bound_s,
    late_s,
    overload,
    too_slow,
)
from bridge.pipeline.monitor import verdict
from engine.controls import Controls

ALL = [s for s in all_settings() if s.steps != 3 and (s.hold or s.target_ms == 400.0)]
"""Without Hold, the target changes nothing but what is said."""


def chunk_s(machine: Machine, steps: int, batch: bool) -> float:
    return machine.seconds(steps) if batch else steps * machine.seconds(1)


def most_s(machine: Machine, steps: int, batch: bool) -> float:
    """The bound, and the time for which one picture is on air: it becomes older until the next one is due."""
    return bound_s(machine, steps, batch) + chunk_s(machine, steps, batch) / 4 + 0.05


def settled_s(machine: Machine, steps: int, batch: bool) -> float:
    """Time of two chunks; with the stream batch its rows are filled first."""
    one = chunk_s(machine, steps, batch)
    return 2 * one + (steps - 1) * one * batch + PERIOD_S


@pytest.mark.parametrize(
    ("settings", "asynchronous"),
    [(s, False) for s in ALL] + [(s, True) for s in ALL if s.target_ms == 400.0],
    ids=str,
)
def test_overload_drops_and_never_queues_whatever_is_set(settings: Settings, asynchronous: bool) -> None:
    for made in too_slow(settings.steps):
        machine = replace(made, asynchronous=asynchronous)
        one = chunk_s(machine, settings.steps, settings.batch)
        warm_up = WARM_UP * settings.steps * machine.seconds(1)
        settled = PERIOD_S + warm_up + settled_s(machine, settings.steps, settings.batch)
        show = Show(machine, settings).run(settled + 9.0)
        assert late_s(show, settled) <= most_s(machine, settings.steps, settings.batch) + one, "Hold still decides"
        latency = late_s(show, settled + 6.0)
        steps = max(tick.steps for tick in show.on_air if tick.at_s >= settled + 6.0)  # Hold tries one more at times
        assert latency <= most_s(machine, steps, settings.batch)
        said = show.said[-1][1]
        if not settings.hold:
            assert steps == settings.steps, "without Hold, the steps are those that were set"
            assert "too many here" in said or "cannot be held" in said or settings.steps == 1
        elif verdict(1e3 * latency, settings.target_ms) != "held":
            assert "too slow" in said.lower() or "cannot be held" in said


@pytest.mark.parametrize("batch", [True, False])
def test_other_steps_are_on_air_within_two_chunks_and_the_input_never_is(batch: bool) -> None:
    machine = Machine("1 step is 3 times too slow", 0.65 * 3 * PERIOD_S, 0.35 * 3 * PERIOD_S)
    show, seconds = Show(machine, Settings(1, False, 400.0, batch)).run(8.0), 8.0
    for steps in (4, 1, 2):
        slower = max(steps, show.on_air[-1].steps)
        settled = seconds + settled_s(machine, slower, batch) + chunk_s(machine, slower, batch)
        show.controls = replace(show.controls, steps=steps)
        show.run(9.0)
        seconds += 9.0
        assert late_s(show, settled) <= most_s(machine, steps, batch)
        assert {tick.steps for tick in show.on_air if tick.at_s >= settled} == {steps}
    assert all(tick.steps for tick in show.on_air if tick.at_s > 8.0), "the input was on air"


def test_what_fits_is_said_and_what_is_held_too() -> None:
    show = Show(Machine("2 steps fit", 0.05, 0.027), Settings(4, False, 600.0, True)).run(6.0)
    assert show.said[-1][1] == "4 steps are too many here: 2 fit."
    show.controls = replace(show.controls, slo_auto=True)
    show.run(9.0)
    assert show.said[-1][1] == "2 of 4 steps to hold the rate and 600 ms."
    show.controls = Controls(steps=2, slo_latency=2000.0)
    assert show.run(6.0).said[-1][1] == ""
    show.controls = Controls(steps=1, slo_latency=100.0)
    assert show.run(6.0).said[-1][1] == "100 ms cannot be held here: 1 step needs 220 ms. Raise the latency target."


def test_a_latency_is_held_late_or_missed() -> None:
    assert [verdict(ms, 400.0) for ms in (0, 400, 415, 450, 800, 810)] == [
        "held",
        "held",
        "held",
        "late",
        "late",
        "missed",
    ]


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.bench.overload.all_settings", lambda: [Settings(2, False, 400.0, False)])
    overload()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert "| 2 | off | 400 | no | 2 |" in printed[2] and "2 steps are too many here" in printed[2]
