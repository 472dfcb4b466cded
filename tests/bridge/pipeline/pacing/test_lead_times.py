"""How long before it is to be seen a change is made, by who obeys it."""

from __future__ import annotations

import math
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
    [("prompt_1", 250.0 - 7.0 - 80.0 + 40.0), ("steps", 203.0), ("mask", 260.0), ("mix", 8.0), ("freeze", 8.0)],
)
def test_the_lead_time_is_that_of_the_owner(name: str, expected: float) -> None:
    readings = {"latency": 250.0, "fps_engine": 25.0, "fps_in": 50.0}
    lead = LeadTimes((*STAGES, ROW), lambda: readings, lambda: 4.0, lambda: 7.0, lambda: 16.0)
    assert lead.of(name) == pytest.approx(expected)


def test_before_anything_is_measured_a_change_is_made_at_its_moment() -> None:
    lead = LeadTimes(STAGES, dict, lambda: 0.0, lambda: 0.0, lambda: 40.0)
    assert lead.of("prompt_1") == 0.0
    assert lead.of("mirror") == 0.0
    readings = {"latency": 60.0, "fps_engine": 10.0}
    lead = LeadTimes(STAGES, lambda: readings, lambda: 4.0, lambda: 0.0, lambda: 40.0)
    assert lead.of("steps") == 0.0, "never after it"


@pytest.mark.parametrize("waited", [0.0, 30.0])
@pytest.mark.parametrize("frames", [1, 3, 4, 12])
@pytest.mark.parametrize("fps", [16.0, 25.0, 60.0])
def test_a_change_of_the_engine_is_seen_within_half_a_chunk_whatever_the_chunk(
    frames: int, fps: float, waited: float
) -> None:
    """A model of the engine: a chunk begins a while after its last frame's capture and obeys what was sent before."""
    latency, frame = 400.0, 1000.0 / fps
    readings = {"latency": latency, "fps_engine": fps}
    lead = LeadTimes(STAGES, lambda: readings, lambda: frames, lambda: waited, lambda: 16.0)
    away = []
    for step in range(200):
        moment = 10_000.0 + step * frames * frame / 200
        arrives = moment - lead.of("prompt_1")
        chunk = math.ceil((arrives - waited - (frames - 1) * frame) / (frames * frame))
        away.append(chunk * frames * frame + latency - moment)
    assert max(away) <= frames * frame / 2.0 + 0.1 and min(away) >= -frames * frame / 2.0 - 0.1
    assert abs(sum(away) / len(away)) < frames * frame / 100.0
