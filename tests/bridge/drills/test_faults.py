"""The fault drill with a tiny model: whatever breaks, the output goes on and the controls stay as they were."""

from __future__ import annotations

import pytest

from bridge.bench.peers import Seen, longest_held_ms
from bridge.drills.faults import LIMIT_MS, Drill
from bridge.process.faults import PAUSE_S

CASES = (
    "source killed and restarted",
    "two sources swapped",
    "size changed mid-stream",
    "receiver killed",
    "engine killed (SIGKILL)",
    "engine hangs",
    "engine stops for 4 s",
    "engine out of memory",
    "engine raises",
    "disk full at a snapshot",
    "clock jumps an hour",
    "port already in use",
)


@pytest.fixture(scope="module")
def drill():
    tiny = {"engine.model": "wan21-tiny", "engine.width": 64, "engine.height": 64}
    with Drill(tiny, 320, 176, 30) as drill:
        yield drill


@pytest.fixture(scope="module")
def quiet_ms(drill):
    """The longest pause when nothing is broken: what this machine itself does to the output."""
    return drill.run("nothing (for comparison)").gap_ms


def test_the_list_of_cases_is_whole(drill):
    assert {*CASES, "nothing (for comparison)"} == set(drill.cases())


def test_how_long_a_picture_was_held_is_read_off_its_number():
    def seen(at_ms, number):
        return Seen(at_ms * 1_000_000, None, (0.0, 0.0, 0.0), 2, 2, {"seq": str(number)})

    assert longest_held_ms([]) == longest_held_ms([seen(0, 1)]) == 0.0
    assert longest_held_ms([seen(0, 1), seen(33, 2), seen(66, 2), seen(99, 2), seen(132, 3), seen(165, 4)]) == 99.0
    assert longest_held_ms([seen(0, 1), seen(33, 2), seen(66, 2), seen(99, 2)]) == 66.0, "held to the end"


@pytest.mark.parametrize("case", CASES)
def test_the_show_goes_on(drill, quiet_ms, case):
    outcome = drill.run(case)
    assert outcome.controls, outcome
    if case.startswith("engine"):
        assert outcome.held_ms - outcome.machine_ms <= outcome.held_limit_ms, outcome
    # A pause that a program that only sleeps sees as well is the machine's, not the bridge's.
    assert outcome.gap_ms - outcome.machine_ms <= max(LIMIT_MS, 3.0 * quiet_ms), outcome
    if case not in ("size changed mid-stream", "receiver killed", "two sources swapped", "clock jumps an hour"):
        no_stall = "stops" in case and outcome.held_limit_ms > PAUSE_S * 1e3  # on a machine so slow that it was none
        assert outcome.reported or no_stall
