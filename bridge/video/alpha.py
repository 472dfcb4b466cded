"""Transparency of pictures, straight and premultiplied, with OpenCV on the calling thread.

Straight: a pixel has its own colour, however transparent it is. Premultiplied: its colour is multiplied by its alpha.
All of it is rounded to the nearest level: alpha 0 and 255 are exact, and nothing becomes larger than 255.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

STRAIGHT, PREMULTIPLIED = "straight", "premultiplied"

cv2.setNumThreads(1)  # the model needs the other cores


def rgba(pixels: np.ndarray, alpha: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
    """A picture with its alpha as the fourth channel.

    Args:
        pixels: uint8 [H, W, 3].
        alpha: uint8 [H, W].
        into: where to write it, uint8 [H, W, 4], C-contiguous; memory of its own by default.
    """
    made = np.empty((*alpha.shape, 4), np.uint8) if into is None else into
    cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA, dst=made)
    cv2.insertChannel(alpha, made, 3)
    return made


def premultiplied(pixels: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
    """A straight picture, uint8 [H, W, 4] with alpha last, premultiplied; `into` may be the picture itself."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2mRGBA, dst=into))


def straight(pixels: np.ndarray) -> np.ndarray:
    """A premultiplied picture, uint8 [H, W, 4] with alpha last, with its own colours.

    They are black where alpha is 0, and cut off at 255 where a colour is larger than its alpha.
    """
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_mRGBA2RGBA))


def both(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What two alphas, uint8 [H, W], leave of a picture: their product."""
    return np.asarray(cv2.multiply(one, other, scale=1.0 / 255.0))


@functools.lru_cache(maxsize=4)
def opaque(width: int, height: int) -> np.ndarray:
    """The alpha of an opaque picture: uint8 [height, width], read-only, the same array for the same size."""
    made = np.full((height, width), 255, np.uint8)
    made.setflags(write=False)
    return made
