"""Moves a person mask from the input frame that it was made of to another one.

The newest mask is a frame or more older than the newest input frame. Moved by the motion between the two, its edges lie
where the edges of the person are now.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from bridge.pipeline.canvas.flow import EXPLAINED, LARGE, grid, remapped
from bridge.pipeline.canvas.scaling import reduced
from bridge.pipeline.mask.region import Region
from engine.frame import Frame

_NONE: Any = None  # as OpenCV takes it, and its type annotations do not


class Mover:
    """Moves masks. Belongs to one thread."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def moved(self, values: np.ndarray, region: Region, then: Frame, now: Frame) -> np.ndarray:
        """A mask of the moment of `now`; unchanged if motion does not explain how one frame became the other.

        Args:
            values: the mask, uint8 [h, w].
            region: what it covers.
            then, now: the input frame that it was made of and the one that is shown, of one size.
        """
        before, after = _grey(then, region, values.shape), _grey(now, region, values.shape)
        flow = np.asarray(self._dis.calc(after, before, _NONE))
        places = np.asarray(cv2.add(flow, grid(after)))
        left = cv2.mean(cv2.absdiff(remapped(before, places), after))[0]
        change = cv2.mean(cv2.absdiff(before, after))[0]
        if left >= change or (change > LARGE and left > EXPLAINED * change):
            return values  # nothing has moved, or this is another scene
        return remapped(values, places)


def _grey(frame: Frame, region: Region, shape: tuple[int, ...]) -> np.ndarray:
    """The brightness of a region of a frame at the size of a mask."""
    part = np.ascontiguousarray(frame.pixels[region.slices(frame.width, frame.height)])
    return np.asarray(cv2.cvtColor(reduced(part, shape[1], shape[0]), cv2.COLOR_RGB2GRAY))
