"""The guided filter (He, Sun and Tang, ECCV 2010): a picture as a local linear function of another one, its guide.

Around every pixel, `values = slope * guide + offset`. Slope and offset are found at a small size and used at a large
one, with a guide of that size (He and Sun, "Fast Guided Filter", 2015).
"""

from __future__ import annotations

import cv2
import numpy as np


def slopes(
    values: np.ndarray, guide: np.ndarray, radius: int, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slope of a picture over its guide around each pixel.

    Args:
        values: [h, w] or [h, w, channels].
        guide: [h, w].
        radius: of the square around a pixel that is looked at, in pixels.
        epsilon: regularisation: where the guide's variance is well below this, the slope is nearly 0.

    Returns:
        The slope, like `values`, and the means of values and guide over the square; float32.
    """
    side = (2 * radius + 1, 2 * radius + 1)
    guide, values = guide.astype(np.float32), values.astype(np.float32)
    mean, means = np.asarray(cv2.blur(guide, side)), np.asarray(cv2.blur(values, side))
    variance = cv2.blur(guide * guide, side) - mean * mean
    if values.ndim == 3:
        guide, mean_guide, variance = guide[:, :, None], mean[:, :, None], variance[:, :, None]
    else:
        mean_guide = mean
    covariance = cv2.blur(values * guide, side) - means * mean_guide
    return covariance / (variance + epsilon), means, mean


def coefficients(values: np.ndarray, guide: np.ndarray, radius: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset around each pixel, averaged over all squares that hold it; arguments as for `slopes`.

    Args:
        values: [h, w].

    Returns:
        Two float32 [h, w].
    """
    side = (2 * radius + 1, 2 * radius + 1)
    slope, means, mean = slopes(values, guide, radius, epsilon)
    return np.asarray(cv2.blur(slope, side)), np.asarray(cv2.blur(means - slope * mean, side))
