"""Puts two pictures together by a matte."""

from __future__ import annotations

import cv2
import numpy as np


def blended(outside: np.ndarray, inside: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """One picture inside a matte, another one outside.

    Args:
        outside, inside: uint8 [H, W, 3].
        matte: uint8 [H, W], 255 for inside.

    Returns:
        A new picture. Where the matte is 0 it has the pixels of `outside`, where it is 255 those of `inside`.
    """
    made = outside.copy()
    x, y, width, height = cv2.boundingRect(matte)
    if width == 0:
        return made
    box = slice(y, y + height), slice(x, x + width)
    weight = matte[box].astype(np.float32)
    weight *= 1.0 / 255.0
    made[box] = cv2.blendLinear(
        np.ascontiguousarray(inside[box]), np.ascontiguousarray(outside[box]), weight, 1.0 - weight
    )
    return made


def mixed(dry: np.ndarray, wet: np.ndarray, share: float) -> np.ndarray:
    """Two pictures, `share` of the second one; the given arrays themselves at 0 and 1."""
    if share <= 0.0:
        return dry
    if share >= 1.0:
        return wet
    return np.asarray(cv2.addWeighted(dry, 1.0 - share, wet, share, 0.0))


def without_color(pixels: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A picture with less colour.

    Args:
        pixels: uint8 [H, W, 3].
        share: uint8 [H, W], 255 where all colour is taken away.
    """
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return blended(pixels, np.asarray(grey), share)


def filled(color: tuple[int, int, int], width: int, height: int) -> np.ndarray:
    """A picture of one colour: uint8 [height, width, 3]."""
    return np.full((height, width, 3), color, np.uint8)
