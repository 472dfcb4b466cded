"""From a mask to the matte on the canvas: threshold and softness, grow and shrink, refinement, feather."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from bridge.pipeline.canvas import guided

RADIUS = 4
"""Radius of the refinement's square, in pixels of the working size."""

EPSILON = 20.0
"""Regularisation of the refinement: variances of the brightness (0..255, squared) well below this count as none."""

TRACES = 0.05
"""The refinement leaves traces where the mask is sure: what is within this share of 0 or 1 becomes 0 or 1."""

UNSURE = 0.3
"""The same for a person mask, whose edge is some pixels wide where that of the person is sharp."""

STEP = 3
"""A matte grows by circles of this radius, one after the other: cheaper than one large circle."""


def shaped(mask: np.ndarray, threshold: float, softness: float, smooth: bool = True) -> np.ndarray:
    """A mask with its edge at a threshold: a step from 0 to 255 over the softness around it.

    Args:
        mask: uint8 [h, w].
        threshold, softness: 0..1.
        smooth: whether the step begins and ends gradually; else it is straight, and leaves the mask as it is with the
            threshold 0.5 and the softness 1.
    """
    return np.asarray(cv2.LUT(mask, _step(threshold, softness, smooth)))


@functools.lru_cache(maxsize=16)
def _step(threshold: float, softness: float, smooth: bool) -> np.ndarray:
    width = max(softness, 1 / 255)
    share = np.clip((np.arange(256) / 255.0 - threshold) / width + 0.5, 0.0, 1.0)
    if smooth:
        share = share * share * (3.0 - 2.0 * share)
    return np.rint(share * 255.0).astype(np.uint8)


def grown(mask: np.ndarray, pixels: float) -> np.ndarray:
    """A mask, larger by so many pixels, or smaller if that is negative: uint8 [h, w]."""
    left = round(abs(pixels))
    change = cv2.dilate if pixels > 0 else cv2.erode
    while left > 0:
        radius = min(left, STEP)
        mask = np.asarray(change(mask, _circle(radius)))
        left -= radius
    return mask


@functools.lru_cache(maxsize=8)
def _circle(radius: int) -> np.ndarray:
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def feathered(mask: np.ndarray, pixels: float) -> np.ndarray:
    """A mask whose edge is soft over so many pixels: uint8 [h, w]."""
    side = 2 * round(pixels / 2) + 1
    for _ in range(2):  # two averages are one with weights that fall off evenly
        mask = np.asarray(cv2.blur(mask, (side, side), borderType=cv2.BORDER_REPLICATE))
    return mask


def refined(mask: np.ndarray, guide: np.ndarray, margin: float, full: np.ndarray | None = None) -> np.ndarray:
    """A mask whose edges lie on edges of the input.

    Args:
        mask: uint8 [h, w].
        guide: the input's brightness, uint8 [h, w].
        margin: what is within this share of 0 or 1 becomes 0 or 1: `TRACES` or `UNSURE`.
        full: the same at a larger size; the result has that size then.

    Returns:
        uint8 [h, w], or of the larger size. Where the mask is 0 or 255 all around, it stays so.
    """
    slope, offset = guided.coefficients(mask, guide, RADIUS, EPSILON)
    gain = 1.0 / (1.0 - 2.0 * margin)
    slope, offset = slope * gain, (offset - 255.0 * margin) * gain
    if full is None:
        full = guide
    else:
        size = full.shape[1], full.shape[0]
        slope = np.asarray(cv2.resize(slope, size, interpolation=cv2.INTER_LINEAR))
        offset = np.asarray(cv2.resize(offset, size, interpolation=cv2.INTER_LINEAR))
    scaled = cv2.multiply(slope, full, dtype=cv2.CV_32F)
    return np.asarray(cv2.add(scaled, offset, dtype=cv2.CV_8U))


def stretched(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask at another size: uint8 [height, width]."""
    if mask.shape == (height, width):
        return mask
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR))
