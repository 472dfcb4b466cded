"""How long before it is to be seen a change is made, by who obeys it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bridge.pipeline.pacing.lead_times import LeadTimes
from bridge.pipeline.stages.base import Place, Stage, StageRow
from bridge.pipeline.stages.table import STAGES
from engine.control import live


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskControls:
    mask: float = live(0.0, "/mask", "A mask.", group="x", label="x", low=0.0, high=1.0)


def make(width: int, height: int) -> Stage:
    raise AssertionError("only declared")


ROW = StageRow("mask", Place.INPUT, make, MaskControls)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("prompt_1", 250.0 - 80.0 + 10.0), ("steps", 180.0), ("mask", 250.0), ("mix", 8.0), ("freeze", 8.0)],
)
def test_the_lead_time_is_that_of_the_owner(name: str, expected: float) -> None:
    readings = {"latency": 250.0, "fps_engine": 25.0}
    lead = LeadTimes((*STAGES, ROW), lambda: readings, lambda: 4.0, lambda: 16.0)
    assert lead.of(name) == pytest.approx(expected)


def test_before_anything_is_measured_a_change_is_made_at_its_moment() -> None:
    lead = LeadTimes(STAGES, dict, lambda: 0.0, lambda: 40.0)
    assert lead.of("prompt_1") == 10.0  # the engine is sent its controls that often
    assert lead.of("mirror") == 0.0
    readings = {"latency": 20.0, "fps_engine": 10.0}
    assert LeadTimes(STAGES, lambda: readings, lambda: 4.0, lambda: 40.0).of("steps") == 0.0, "never after it"
