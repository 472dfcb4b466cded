"""Luma key and chroma key: mattes of brightness and of colour.

The chroma key compares the colour difference (Cb, Cr) of BT.709 with that of the key colour, averaged over neighbouring
pixels, as the filters of that name in video mixers do. Distances are in shares: 1 is from grey to pure green.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

SMALLEST = 0.0039
"""Smallest softness: less than one level of 256."""

_CB = np.array((-0.2126, -0.7152, 0.9278), np.float32) / 1.8556
_CR = np.array((0.7874, -0.7152, -0.0722), np.float32) / 1.5748
_TO_CHROMA = np.stack((_CB, _CR))
_GREEN = float(np.hypot(_CB[1], _CR[1]))  # distance of pure green from grey


def luma(grey: np.ndarray, low: float, high: float, softness: float) -> np.ndarray:
    """The matte of what is between two brightnesses.

    Args:
        grey: brightness, uint8 [h, w].
        low, high: 0..1; what lies between them belongs to the matte.
        softness: over this distance below `low` and above `high` the matte fades, 0..1.

    Returns:
        uint8 [h, w].
    """
    return np.asarray(cv2.LUT(grey, _luma_levels(low, high, softness)))


@functools.lru_cache(maxsize=16)
def _luma_levels(low: float, high: float, softness: float) -> np.ndarray:
    levels = np.arange(256, dtype=np.float32) / 255.0
    soft = max(softness, SMALLEST)
    inside = np.minimum(levels - (low - soft), (high + soft) - levels) / soft
    return np.asarray(np.rint(np.clip(inside, 0.0, 1.0) * 255.0), np.uint8)


def chroma_distance(pixels: np.ndarray, key: tuple[int, int, int]) -> np.ndarray:
    """How far every pixel's colour is from the key colour: float32 [h, w], 0 for the same.

    Args:
        pixels: RGB, uint8 [h, w, 3].
        key: red, green and blue, 0..255.
    """
    # The key's own colour difference is taken away by the fourth column, which is added to every pixel.
    to_distance = np.column_stack((_TO_CHROMA, -_TO_CHROMA @ np.array(key, np.float32))) / (255.0 * _GREEN)
    blue, red = cv2.split(cv2.transform(pixels.astype(np.float32), to_distance))
    return np.asarray(cv2.blur(cv2.magnitude(blue, red), (3, 3)))


def chroma(distance: np.ndarray, similarity: float, softness: float) -> np.ndarray:
    """The matte of what is not of the key colour.

    Args:
        distance: of `chroma_distance`.
        similarity: up to this distance a pixel does not belong to the matte.
        softness: over this distance more it fades in.

    Returns:
        uint8 [h, w].
    """
    inside = (distance - similarity) / max(softness, SMALLEST)
    return (np.clip(inside, 0.0, 1.0) * 255.0).astype(np.uint8)


def spill(distance: np.ndarray, similarity: float, width: float) -> np.ndarray:
    """How much of its colour a pixel loses because it is nearly of the key colour.

    Args:
        distance, similarity: as for `chroma`.
        width: over this distance from the key's end on it fades out, 0..1.

    Returns:
        uint8 [h, w], 255 for all of it.
    """
    return 255 - chroma(distance, similarity, width)
