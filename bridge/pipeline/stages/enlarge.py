"""The stage that brings the restyled picture to the canvas, and adds fine detail of the input to it.

The picture is enlarged by cubic interpolation. What the model's size could not hold is in the input: its brightness at
the size of the canvas, less the same after it has been through the model's size. How much of it belongs into each
colour is the slope by which the restyled picture follows the input's brightness around a pixel, as in the guided filter
(He, Sun and Tang, ECCV 2010; in its fast form, with the slopes of the small size). Where the model drew something of
its own, the slope is about zero, and nothing is added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from bridge.pipeline.canvas import guided
from bridge.pipeline.canvas.scaling import enlarged
from bridge.pipeline.canvas.size import Size, same_shape
from bridge.pipeline.stages.base import Context, Stage
from bridge.pipeline.stages.enlarge_controls import EnlargeControls
from engine.frame import Frame

RADIUS = 2
"""Radius of the square around a pixel from which its slope is found, in pixels of the model."""

EPSILON = 40.0
"""Regularisation of the slope: variances of the brightness (0..255, squared) well below this count as none."""

STEEPEST = 2.0
"""Largest slope, positive or negative."""

SCALE = 64
"""Slopes are enlarged as whole numbers, in steps of one over this."""


class Enlarge(Stage):
    """Enlarges restyled frames to the canvas. Input frames pass unchanged.

    Args:
        model: the model's size. Where the canvas is of that size, the picture has whatever size its stages gave it.
    """

    def __init__(self, model: Size) -> None:
        self._model = model
        self._detail_given_up = False
        self._wanted_detail = False

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The frame at the size of the canvas."""
        detail = context.controls.of(EnlargeControls).detail
        self._wanted_detail = detail > 0.0
        if not context.wet or context.canvas in (self._model, (frame.width, frame.height)):
            return (frame,)
        pixels = enlarged(frame.pixels, *context.canvas)
        if detail > 0.0 and not self._detail_given_up:
            full, small = context.history.at(frame.shows_ns), context.history.small_at(frame.shows_ns)
            if full is not None and small is not None and _fit_together(frame, full, small, context):
                pixels = detailed(pixels, frame.pixels, full.pixels, small.pixels, detail)
        return (dataclasses.replace(frame, pixels=pixels),)

    def give_up(self) -> str:
        """Leave out the detail until `restore`."""
        if self._detail_given_up or not self._wanted_detail:
            return ""
        self._detail_given_up = True
        return "detail"

    def restore(self) -> None:
        """Try the detail again."""
        self._detail_given_up = False


def _fit_together(frame: Frame, full: Frame, small: Frame, context: Context) -> bool:
    """Whether all sizes are as they should be; not so for the first frames after the canvas has changed."""
    return (
        (full.width, full.height) == context.canvas
        and small.pixels.shape == frame.pixels.shape
        and same_shape((frame.width, frame.height), context.canvas)
    )


def detailed(
    pixels: np.ndarray, restyled: np.ndarray, full: np.ndarray, small: np.ndarray, amount: float
) -> np.ndarray:
    """Add the input's fine detail to an enlarged picture.

    Args:
        pixels: the enlarged restyled picture, uint8 [H, W, 3].
        restyled: the same before, uint8 [h, w, 3].
        full, small: the input frame of the same moment, [H, W, 3] and [h, w, 3].
        amount: 0..1.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = pixels.shape[:2]
    guide = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    slopes = cv2.resize(_slopes(restyled, guide), (width, height), interpolation=cv2.INTER_LINEAR)
    fine = cv2.subtract(cv2.cvtColor(full, cv2.COLOR_RGB2GRAY), enlarged(guide, width, height), dtype=cv2.CV_16S)
    added = cv2.multiply(cv2.merge((fine, fine, fine)), slopes, scale=amount / SCALE, dtype=cv2.CV_16S)
    return np.asarray(cv2.add(pixels, added, dtype=cv2.CV_8U))


def _slopes(restyled: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """The local slope of each colour over the guide, times `SCALE`: int16 [h, w, 3]."""
    slopes = guided.slopes(restyled, guide, RADIUS, EPSILON)[0]
    return np.asarray((np.clip(slopes, -STEEPEST, STEEPEST) * SCALE).astype(np.int16))
