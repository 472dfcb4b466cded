"""The table of stages: one row each, in the order in which they run. To add a stage, add its module and its row.

A stage's module is imported when the stage is created, so that a program that only lists the controls does not load it.
"""

from __future__ import annotations

from bridge.pipeline.alpha.controls import STATE, AlphaControls
from bridge.pipeline.mask.controls import READINGS, MaskControls
from bridge.pipeline.stages.base import Place, Stage, StageRow
from bridge.pipeline.stages.enlarge_controls import EnlargeControls
from bridge.pipeline.stages.fit_controls import FitControls
from bridge.pipeline.stages.mix_controls import MixControls
from bridge.pipeline.stages.reproject_controls import REPROJECTION, ReprojectControls


def _fit(width: int, height: int) -> Stage:
    from bridge.pipeline.stages.fit import Fit

    return Fit()


def _reproject(width: int, height: int) -> Stage:
    from bridge.pipeline.stages.reproject import Reproject

    return Reproject()


def _enlarge(width: int, height: int) -> Stage:
    from bridge.pipeline.stages.enlarge import Enlarge

    return Enlarge((width, height))


def _mix(width: int, height: int) -> Stage:
    from bridge.pipeline.stages.mix import Mix

    return Mix()


def _mask(width: int, height: int) -> Stage:
    from bridge.pipeline.mask.stage import Mask

    return Mask()


def _alpha(width: int, height: int) -> Stage:
    from bridge.pipeline.alpha.stage import Alpha

    return Alpha()


STAGES = (
    StageRow("fit", Place.INPUT, _fit, FitControls, budget_ms=3.0),
    StageRow(
        "reproject",
        Place.TICK,
        _reproject,
        ReprojectControls,
        (REPROJECTION,),
        budget_ms=4.0,
        plain={"reproject": 0.0},
    ),
    StageRow("enlarge", Place.TICK, _enlarge, EnlargeControls, budget_ms=6.0, plain={"detail": 0.0}),
    StageRow("mix", Place.TICK, _mix, MixControls, budget_ms=3.0),
    StageRow("mask", Place.TICK, _mask, MaskControls, READINGS, budget_ms=12.0),
    StageRow("alpha", Place.TICK, _alpha, AlphaControls, (STATE,), budget_ms=0.5),
)
