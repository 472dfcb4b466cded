"""The stage that blends dry and wet, and brings the dry picture to the size of the wet one.

A restyled picture is as transparent as its input frame, whatever the share of the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2

from bridge.pipeline.canvas.size import Size
from bridge.pipeline.fit import Fitter
from bridge.pipeline.stages.base import Context, Stage
from bridge.pipeline.stages.mix_controls import MixControls
from engine.frame import Frame


class Mix(Stage):
    """Blends a restyled frame with the input frame of the same time.

    An earlier stage may have given the restyled frames another size than the canvas. Input frames are then scaled to
    that size, so that the output keeps its size while it is bypassed.
    """

    def __init__(self) -> None:
        self._fitter: Fitter | None = None  # for the size of the last restyled frame
        self._canvas: Size | None = None  # for which that size was made

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The blend, with the alpha of its input frame; the frame itself if that is no longer in the history."""
        if context.canvas != self._canvas:
            self._fitter, self._canvas = None, context.canvas
        if not context.wet:
            return (self._fitted(frame),)
        fitter = self._fitter
        if fitter is None or (fitter.width, fitter.height) != (frame.width, frame.height):
            self._fitter = Fitter(frame.width, frame.height)
        mix = context.controls.of(MixControls).mix
        dry = context.history.at(frame.shows_ns)
        if dry is None or (mix >= 1.0 and dry.alpha is None):
            return (frame,)
        dry = self._fitted(dry)
        if mix >= 1.0:
            return (dataclasses.replace(frame, alpha=dry.alpha),)
        if mix <= 0.0:
            return (dry,)
        blended = cv2.addWeighted(dry.pixels, 1.0 - mix, frame.pixels, mix, 0.0)
        return (dataclasses.replace(frame, pixels=blended, alpha=dry.alpha),)

    def _fitted(self, dry: Frame) -> Frame:
        """An input frame at the size of the last restyled one; the frame itself if it has that size."""
        fitter = self._fitter
        if fitter is None or (fitter.width, fitter.height) == (dry.width, dry.height):
            return dry
        alpha = None if dry.alpha is None else fitter.fit_alpha(dry.alpha)
        return dataclasses.replace(dry, pixels=fitter.fit(dry), alpha=alpha)
