"""The fault drill with a tiny model: whatever breaks, the output goes on and the controls stay as they were."""

from __future__ import annotations

import dataclasses
import time

import pytest

from bridge.bench.peers import Seen, longest_held_ms
from bridge.drills.faults import controls
from bridge.drills.faults.drill import Drill
from bridge.drills.faults.table import CASES, NOTHING
from bridge.process.faults import PAUSE_S
from bridge.web import server_process
from tests.bridge.drills.pauses import allowed_ms, paused_ms

pytestmark = pytest.mark.alone

SETTLE_S = 0.5
QUIET_S = 1.5

SETTINGS = {
    "engine.model": "wan21-tiny",
    "engine.width": 32,  # the smallest: the engine works all the time
    "engine.height": 32,
    # Longer than the engine that pauses may pause, and a hundred times as long as one of its steps.
    "process.hang_seconds": PAUSE_S + 2.0,
    # Else each engine that ends makes the cases after it wait longer for the next one.
    "process.backoff_max_seconds": 0.5,
}


@pytest.fixture(scope="module")
def drill():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_process, "HANG_S", 4.0)  # eight of its signs of life
        patch.setattr(controls, "UNREAD_S", 1.5)
        with Drill(SETTINGS, 320, 176, 30, SETTLE_S) as drill:
            yield drill


@pytest.fixture(scope="module")
def quiet_ms(drill):
    """The longest pause when nothing is broken: what this machine itself does to the output."""
    return drill.run(dataclasses.replace(NOTHING, cause=lambda drill: time.sleep(QUIET_S))).gap_ms


def test_how_long_a_picture_was_held_is_read_off_its_number():
    def seen(at_ms, number):
        return Seen(at_ms * 1_000_000, None, (0.0, 0.0, 0.0), 2, 2, {"seq": str(number)})

    assert longest_held_ms([]) == longest_held_ms([seen(0, 1)]) == 0.0
    assert longest_held_ms([seen(0, 1), seen(33, 2), seen(66, 2), seen(99, 2), seen(132, 3), seen(165, 4)]) == 99.0
    assert longest_held_ms([seen(0, 1), seen(33, 2), seen(66, 2), seen(99, 2)]) == 66.0, "held to the end"


@pytest.mark.parametrize("case", [case for case in CASES if case is not NOTHING], ids=lambda case: case.name)
def test_the_show_goes_on(drill, quiet_ms, case):
    if why := case.missing():
        pytest.skip(why)
    outcome = drill.run(case)
    assert outcome.controls, outcome
    if case.engine:
        assert outcome.held_ms <= outcome.held_limit_ms + paused_ms(outcome), outcome
    assert outcome.gap_ms <= allowed_ms(outcome, quiet_ms), outcome
    if case.tells:
        no_stall = "stops" in case.name and outcome.held_limit_ms > PAUSE_S * 1e3  # a machine so slow that it was none
        assert outcome.reported or no_stall
