"""Says when the model's picture is stretched, because the output has other proportions, and which sizes would fit."""

from __future__ import annotations

import functools
import math

from bridge.pipeline.canvas.size import Size, same_shape
from bridge.process.engine.choice import LARGEST_SIDE, LEAST_SIDE, MULTIPLE

MOST_AREA = 1.1
"""A size that is proposed for the model has at most this many times its pixels: it must not cost much more."""

SHAPE_WEIGHT = 10.0
"""How much a difference in the proportions counts beside the same relative difference in the number of pixels."""


@functools.lru_cache(maxsize=64)
def stretched(model: Size, canvas: Size) -> str:
    """That the model's picture is stretched, and what to do about it, as a sentence.

    Args:
        model: width and height of the model's picture in pixels.
        canvas: those of the output.

    Returns:
        The sentence; empty if nobody sees it, or if the model's size is the canvas's proportions, rounded to multiples
        of `MULTIPLE`.
    """
    if _fits(model, canvas):
        return ""
    wanted = proposed_model(model, canvas)
    output = "{}x{}".format(*proposed_canvas(model, canvas))
    advice = f"an output of {output}"
    if wanted is not None:
        advice = "model size {}x{}, or {}".format(*wanted, advice)
    return "The model's {}x{} is stretched to {}x{}: use {}.".format(*model, *canvas, advice)


def proposed_model(model: Size, canvas: Size) -> Size | None:
    """The size for the model that has the canvas's proportions and about as many pixels as `model`.

    Returns:
        A size that the model may have; None if there is no such size, because the canvas is too narrow or too flat.
    """
    area, ratio = model[0] * model[1], canvas[0] / canvas[1]
    found: list[tuple[float, Size]] = []
    for width in range(LEAST_SIDE, LARGEST_SIDE + 1, MULTIPLE):
        size = width, max(LEAST_SIDE, round(width / ratio / MULTIPLE) * MULTIPLE)
        if size[0] * size[1] > MOST_AREA * area:
            break
        if size[1] <= LARGEST_SIDE and _fits(size, canvas):
            pixels, shape = math.log(size[0] * size[1] / area), math.log(size[0] / size[1] / ratio)
            found.append((abs(pixels) + SHAPE_WEIGHT * abs(shape), size))
    return min(found)[1] if found else None


def proposed_canvas(model: Size, canvas: Size) -> Size:
    """The largest canvas within this one that has the model's proportions, in even numbers."""
    scale = min(canvas[0] / model[0], canvas[1] / model[1])
    width, height = (max(2, round(side * scale / 2) * 2) for side in model)
    return width, height


def _fits(model: Size, canvas: Size) -> bool:
    """Whether the proportions are the same, but for what nobody sees or the rounding to multiples explains."""
    (width, height), ratio = model, canvas[0] / canvas[1]
    rounding = min(abs(height - width / ratio), abs(width - height * ratio))
    return same_shape(model, canvas) or rounding <= MULTIPLE / 2
