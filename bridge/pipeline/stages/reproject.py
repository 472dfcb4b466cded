"""The stage that moves the restyled picture on to what the input shows now.

A restyled frame is some hundred milliseconds old when it is sent. The input has gone on meanwhile, and its newest frame
is here: so the motion from the frame's own input to the newest one is found, and the restyled frame is moved by it, at
every tick of the output. Moving things are then where they are and not where they were, at any rate of the model. VR
headsets do the same with late pictures.

It does not move a frame into another scene: over a cut, in a flash, in a strobe. It moves it to the last frame of its
own scene then. It leaves pixels where they are that the motion explains worse than rest does, such as the edges of what
was covered. And it watches its own success: patterns that belong to the screen (dots, scan lines) are carried along by
moving and would be truer at rest, which shows when the next restyled frame comes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from bridge.pipeline.canvas.flow import Tracker
from bridge.pipeline.stages.base import Context, Stage
from bridge.pipeline.stages.reproject_controls import REPROJECTION, ReprojectControls
from engine.frame import Frame

LONGEST_NS = 1_000_000_000
"""Furthest that a frame is moved on, in ns of the input's time; after that it stays as it is."""

FOLLOWED = 4
"""Most input frames that are followed at one tick; when it is switched on, it catches up within a few ticks."""

HELD_NS = 70_000_000
"""When the last frame of a restyled frame's scene is this much older than wanted, the picture counts as held, in ns."""

STILL = 1.5
"""Mean difference of two input frames, of 255, up to which nothing can be learned from how well moving worked."""

WEIGHT = 0.2
"""Weight of the newest restyled frame in the average by which moving is judged."""

WORSE, BETTER = 1.1, 0.95
"""Moving stops when the moved picture differs from the next restyled one by this many times more than the unmoved one
does, and begins again below the second."""

LEAST_SIDE = 32
"""Pictures with a shorter side, in pixels, are not moved."""


class Reproject(Stage):
    """Moves restyled frames. Input frames pass unchanged."""

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._state = "off"
        self._given_up = False
        self._forget()

    def _forget(self) -> None:
        self._tracker.forget()
        self._frame: Frame | None = None  # the restyled frame on air
        self._own: Frame | None = None  # its input frame
        self._before: tuple[Frame, Frame] | None = None  # restyled and input frame before it, while both are blended
        self._made: tuple[Frame, Frame] | None = None  # the input frame it was moved to last, and the result
        self._ratio = 0.0  # average of (moved difference / unmoved difference) to the next restyled frame
        self._fixed = False  # whether the look is fixed to the screen

    def reset(self) -> None:
        """Forget earlier frames."""
        self._forget()

    def give_up(self) -> str:
        """Show the pictures where the model saw them, until `restore`."""
        if self._given_up or self._frame is None:
            return ""
        self._given_up = True
        return "reprojection"

    def restore(self) -> None:
        """Move them again."""
        self._given_up = False

    def readings(self) -> Mapping[str, Any]:
        """What it does."""
        return {REPROJECTION.name: self._state}

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The frame, moved on; the frame itself if it is not to be moved."""
        amount = context.controls.of(ReprojectControls).reproject
        if not context.wet or amount <= 0.0 or self._given_up:
            self._forget()
            self._state = "given up" if self._given_up and amount > 0.0 else "off"
            return (frame,)
        history, newest = context.history, context.history.newest_small
        if newest is None or min(newest.width, newest.height) < LEAST_SIDE:
            self._state = "no input"
            return (frame,)
        for unseen in history.small_since(self._tracker.last_ns)[:FOLLOWED]:
            self._tracker.follow(unseen)
        if frame is not self._frame:
            self._next(frame, history.small_at(frame.captured_ns))
        own = self._own
        if own is None or not self._tracker.knows(own):
            self._state = "no input"
            return (frame,)
        if self._fixed:
            self._state = "pattern"
            return (frame,)
        wanted_ns = own.captured_ns + round(amount * min(newest.captured_ns - own.captured_ns, LONGEST_NS))
        goal = self._tracker.latest(own, wanted_ns)
        self._state = "held" if wanted_ns - goal.captured_ns > HELD_NS else "on"
        return (self._moved(frame, own, goal),)

    def _next(self, frame: Frame, own: Frame | None) -> None:
        """A new restyled frame is on air: judge by it how well the one before was moved."""
        last, last_own, tracker = self._frame, self._own, self._tracker
        self._frame, self._before, self._made = frame, None, None
        self._own = own if own is not None and own.pixels.shape == frame.pixels.shape else None
        if last is None or last_own is None or self._own is None or self._own.captured_ns <= last_own.captured_ns:
            return
        if not (tracker.knows(last_own) and tracker.knows(self._own)):
            return
        motion = tracker.motion(last_own, self._own)
        if motion is None:
            return
        self._before = last, last_own
        if motion.change > STILL:
            still = _difference(last.pixels, frame.pixels)
            moved = _difference(motion.moved(last.pixels), frame.pixels)
            self._ratio += (moved / max(still, 0.5) - self._ratio) * (WEIGHT if self._ratio else 1.0)
            self._fixed = self._ratio > (BETTER if self._fixed else WORSE)

    def _moved(self, frame: Frame, own: Frame, goal: Frame) -> Frame:
        """The frame, moved on to another input frame of its scene."""
        if self._made is not None and self._made[0] is goal:
            return self._made[1]
        pixels = self._at(frame, own, goal)
        before, self._before = self._before, None
        if before is not None:  # the first tick of a new frame: half of it, half of the one before, moved as far
            pixels = np.asarray(cv2.addWeighted(pixels, 0.5, self._at(*before, goal), 0.5, 0.0))
        made = dataclasses.replace(frame, pixels=pixels, moved_ns=goal.captured_ns)
        self._made = None if before is not None else (goal, made)
        return made

    def _at(self, frame: Frame, own: Frame, goal: Frame) -> np.ndarray:
        """The pixels of a restyled frame at the moment of an input frame."""
        motion = self._tracker.motion(own, goal) if own is not goal else None
        return frame.pixels if motion is None else motion.moved(frame.pixels)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two pictures, of 255, over every second pixel."""
    return float(np.mean(cv2.mean(cv2.absdiff(one[::2, ::2], other[::2, ::2]))[:3]))
