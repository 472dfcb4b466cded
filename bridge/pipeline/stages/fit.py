"""The stage that scales the input to the model's size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bridge.pipeline.fit import Fitter
from bridge.pipeline.stages.base import Context, Stage
from bridge.pipeline.stages.fit_controls import FitControls
from engine.frame import Frame, PixelFormat


class Fit(Stage):
    """Scales every input frame, crops it or adds bars, and mirrors it; gives RGB.

    Args:
        width, height: the model's size in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._fitter = Fitter(width, height)

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The frame at the model's size."""
        controls = context.controls.of(FitControls)
        pixels = self._fitter.fit(frame, controls.fit, controls.mirror)
        return (dataclasses.replace(frame, pixels=pixels, format=PixelFormat.RGB),)
