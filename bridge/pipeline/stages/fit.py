"""The stage that scales the input to the canvas, and takes its alpha along where outputs send transparency."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from bridge.pipeline.alpha.controls import OFF, AlphaControls
from bridge.pipeline.fit import Fitter
from bridge.pipeline.stages.base import Context, Stage
from bridge.pipeline.stages.fit_controls import FitControls
from bridge.video.alpha import PREMULTIPLIED, opaque, straight
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
        alpha, how = None, context.controls.of(AlphaControls)
        if how.output_alpha != OFF:
            has_alpha = frame.format is not PixelFormat.RGB and how.input_alpha != OFF
            if has_alpha and how.input_alpha == PREMULTIPLIED:
                frame = dataclasses.replace(frame, pixels=straight(frame.pixels))
            if has_alpha:
                alpha = np.asarray(cv2.extractChannel(frame.pixels, 3))
            elif controls.fit == "contain":  # its bars are transparent, whatever the input is
                alpha = opaque(frame.width, frame.height)
            if alpha is not None:
                alpha = self._fitter.fit_alpha(alpha, controls.fit, controls.mirror)
        pixels = self._fitter.fit(frame, controls.fit, controls.mirror)
        return (dataclasses.replace(frame, pixels=pixels, format=PixelFormat.RGB, alpha=alpha),)
