"""How the picture moves from input frame to input frame (OpenCV's DIS optical flow), and which frames are of one scene.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, in its fastest preset.

Motion is found between neighbouring frames only, where it is small, and added up: what has moved by a hundred pixels
within ten frames is followed, where a direct search over that distance would fail. A direct search that begins with the
sum then makes its edges sharp again.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from bridge.pipeline.canvas import scaling  # noqa: F401 (gives OpenCV one thread)
from engine.frame import Frame

KEPT_NS = 1_500_000_000
"""How long frames are followed after they came, in ns of the input's time."""

KEPT_FRAMES = 180

SAME_NS = 250_000_000
"""A scene that was last seen within this time may go on: after a flash, or between those of a strobe."""

SCENES = 3
"""Scenes with which a frame that does not follow the last one is compared."""

LARGE, EXPLAINED = 10.0, 0.7
"""A frame begins another scene if it differs from the last one by more than the first figure (mean, of 255), and motion
does not lower that below this share."""

COARSE = 4
"""Motion is kept for every fourth pixel across and down: the preset finds it for no finer grid."""

BLUR = 7
"""Side of the square over which errors are averaged before they are compared, in pixels."""

MARGIN = 4
"""A pixel is taken from the unmoved picture where the motion explains it worse by more than this, of 255."""

_NONE: Any = None  # as OpenCV takes it, and its type annotations do not


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """The motion from one input frame to a later one.

    Attributes:
        places: float32 [h, w, 2]: for every pixel of the later frame, where (x, y) it was in the earlier one.
        worse: uint8 [h, w], 255 where the motion explains the later frame worse than the earlier frame itself.
        change: mean difference between the two frames, of 255.
    """

    places: np.ndarray
    worse: np.ndarray
    change: float

    def moved(self, pixels: np.ndarray) -> np.ndarray:
        """A picture [h, w, channels] of the earlier frame's moment, moved to the later one's."""
        moved = remapped(pixels, self.places)
        cv2.copyTo(pixels, self.worse, moved)
        return moved


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """An input frame and how it came from the one before it in its scene.

    Attributes:
        frame, grey: the frame and its brightness.
        offset: float32 [h / 4, w / 4, 2], where each point was, relative to where it is, in points; zeros in the first
            frame of a scene.
    """

    frame: Frame
    grey: np.ndarray
    offset: np.ndarray


class Tracker:
    """Follows the input. Belongs to one thread.

    Attributes:
        last_ns: `captured_ns` of the frame that came last; 0 before the first.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._scenes: deque[list[_Step]] = deque()  # the one seen last at the end
        self._scene_of: dict[int, list[_Step]] = {}  # by the number of the frame
        self.last_ns = 0

    def forget(self) -> None:
        """Forget all frames."""
        self._scenes.clear()
        self._scene_of.clear()
        self.last_ns = 0

    def follow(self, frame: Frame) -> None:
        """Take the next frame of the input, RGB; does nothing if it is not later than the last one."""
        if frame.captured_ns <= self.last_ns:
            return
        if self._scenes and self._scenes[-1][-1].grey.shape != frame.pixels.shape[:2]:
            self.forget()
        self.last_ns = frame.captured_ns
        grey = np.asarray(cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY))
        recent = [scene for scene in self._scenes if frame.captured_ns - scene[-1].frame.captured_ns <= SAME_NS]
        for scene in reversed(recent[-SCENES:]):
            offset = self._offset(scene[-1].grey, grey)
            if offset is not None:
                self._scenes.remove(scene)
                break
        else:
            height, width = (max(1, side // COARSE) for side in grey.shape)
            scene, offset = [], np.zeros((height, width, 2), np.float32)
        scene.append(_Step(frame, grey, offset))
        self._scenes.append(scene)
        self._scene_of[frame.seq] = scene
        self._drop(frame.captured_ns - KEPT_NS)

    def knows(self, frame: Frame) -> bool:
        """Whether this frame has been followed, and not too long ago."""
        scene = self._scene_of.get(frame.seq)
        return scene is not None and any(step.frame is frame for step in scene)

    def latest(self, of: Frame, until_ns: int) -> Frame:
        """The last frame in the scene of a known frame that was captured at or before this time."""
        scene = self._scene_of[of.seq]
        return next((step.frame for step in reversed(scene) if step.frame.captured_ns <= until_ns), of)

    def motion(self, earlier: Frame, later: Frame) -> Motion | None:
        """The motion between two known frames; None if they are of different scenes."""
        scene = self._scene_of[earlier.seq]
        if self._scene_of[later.seq] is not scene:
            return None
        numbers = [step.frame.seq for step in scene]
        first, last = numbers.index(earlier.seq), numbers.index(later.seq)
        total = scene[last].offset
        for step in reversed(scene[first + 1 : last]):
            total = _after(step.offset, total)
        before, after = scene[first].grey, scene[last].grey
        height, width = after.shape
        scale = np.array((width / total.shape[1], height / total.shape[0]), np.float32)
        flow = cv2.resize(total * scale, (width, height), interpolation=cv2.INTER_LINEAR)
        if last - first > 1:  # edges have become blurred on the way; from here the direct search finds them
            flow = self._dis.calc(after, before, flow)
        places = cv2.add(flow, grid(after))
        moved, still = cv2.absdiff(remapped(before, places), after), cv2.absdiff(before, after)
        excess = cv2.subtract(cv2.blur(moved, (BLUR, BLUR)), cv2.blur(still, (BLUR, BLUR)))
        worse = cv2.threshold(excess, MARGIN, 255, cv2.THRESH_BINARY)[1]
        return Motion(np.asarray(places), np.asarray(worse), cv2.mean(still)[0])

    def _offset(self, before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
        """How the second picture comes from the first one; None if it is another scene."""
        flow = np.asarray(self._dis.calc(after, before, _NONE))
        change = cv2.mean(cv2.absdiff(before, after))[0]
        if change > LARGE:
            left = cv2.mean(cv2.absdiff(remapped(before, cv2.add(flow, grid(after))), after))[0]
            if left > EXPLAINED * change:
                return None
        height, width = after.shape
        size = max(1, width // COARSE), max(1, height // COARSE)
        coarse = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
        return np.asarray(coarse) * np.array((size[0] / width, size[1] / height), np.float32)

    def _drop(self, before_ns: int) -> None:
        count = len(self._scene_of)
        for scene in list(self._scenes):
            while scene and (scene[0].frame.captured_ns < before_ns or count > KEPT_FRAMES):
                self._scene_of.pop(scene.pop(0).frame.seq, None)
                count -= 1
            if not scene:
                self._scenes.remove(scene)


def _after(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Two offsets, one after the other, as one."""
    return np.asarray(cv2.add(then, remapped(first, cv2.add(then, grid(then)))))


def grid(like: np.ndarray) -> np.ndarray:
    """The place (x, y) of every pixel of a picture of this size: float32 [h, w, 2]."""
    return _grid_of(*like.shape[:2])


@functools.lru_cache(maxsize=8)
def _grid_of(height: int, width: int) -> np.ndarray:
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((across, down))


def remapped(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A picture [h, w, ...] whose pixels are those of `pixels` at these places, as `grid` gives them."""
    return np.asarray(cv2.remap(pixels, places, _NONE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
