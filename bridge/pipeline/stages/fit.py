"""The stage that scales the input to the canvas."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bridge.pipeline.fit import Fitter
from bridge.pipeline.stages.base import Context, Stage
from bridge.pipeline.stages.fit_controls import FitControls
from engine.frame import Frame, PixelFormat


class Fit(Stage):
    """Scales every input frame to the canvas, crops it or adds bars, and mirrors it; gives RGB."""

    def __init__(self) -> None:
        self._fitter = Fitter(1, 1)

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The frame at the size of the canvas."""
        if (self._fitter.width, self._fitter.height) != context.canvas:
            self._fitter = Fitter(*context.canvas)
        controls = context.controls.of(FitControls)
        pixels = self._fitter.fit(frame, controls.fit, controls.mirror)
        return (dataclasses.replace(frame, pixels=pixels, format=PixelFormat.RGB),)
