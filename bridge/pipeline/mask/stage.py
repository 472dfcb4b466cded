"""The stage that restyles a part of the picture only: inside or outside of a matte.

It is the last one, on the canvas. What it shows of the input is the input frame of the moment that the picture shows
(`Frame.shows_ns`), and the matte is that of the same moment. So the edges of the matte do not lag behind the input,
even where reprojection moves an older restyled picture on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from bridge.pipeline.canvas.scaling import reduced
from bridge.pipeline.fit import Fitter
from bridge.pipeline.mask import compose, keys, matte
from bridge.pipeline.mask.controls import (
    ALPHA,
    AREA,
    CHROMA,
    COLOR,
    INPUT,
    LUMA,
    OFF,
    OUTSIDE,
    STATE,
    MaskControls,
    color_of,
)
from bridge.pipeline.mask.motion import Mover
from bridge.pipeline.mask.region import Region, region_of
from bridge.pipeline.mask.timeline import PersonMask, Picture
from bridge.pipeline.stages.base import Context, Stage
from bridge.video.alpha import both
from engine.frame import Frame

MOST_PIXELS = 640 * 360
"""The matte is made at the model's size, or at one with this many pixels if that has more."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """The matte of one moment, and what it was made of.

    Attributes:
        key: what it was made of: equal for the same.
        matte: uint8 [H, W] of the picture, 255 inside.
        spill: uint8 [H, W], 255 where all colour is to be taken out; None for nowhere.
        area: share of the picture that is inside.
    """

    key: tuple[object, ...]
    matte: np.ndarray
    spill: np.ndarray | None
    area: float


class Mask(Stage):
    """Restyles inside or outside of a matte. Input frames pass unchanged."""

    def __init__(self) -> None:
        self._mover = Mover()
        self._made: Made | None = None
        self._fitter = Fitter(1, 1)
        self._rough = False  # whether refinement was given up
        self._refines = False
        self._state = OFF

    def readings(self) -> Mapping[str, Any]:
        """What it does, and how large the matte is."""
        made = self._made
        return {STATE.name: self._state, AREA.name: made.area if made is not None else 0.0}

    def give_up(self) -> str:
        """Leave out the refinement of the matte until `restore`."""
        if self._rough or not self._refines:
            return ""
        self._rough = True
        return "refinement of the matte"

    def restore(self) -> None:
        """Refine it again."""
        self._rough = False

    def reset(self) -> None:
        """Forget the last matte."""
        self._made = None

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The frame with the input where it is not to be restyled, and with its matte; the frame itself where there is
        no matte."""
        controls = context.controls.of(MaskControls)
        self._refines = controls.active and controls.mask_refine
        if not controls.active or not context.wet:
            self._state, self._made = OFF, None
            return (frame,)
        full = context.history.at(frame.shows_ns)
        small = context.history.small_at(full.captured_ns) if full is not None else None
        if full is None or small is None:
            self._state = "no input"
            return (frame,)
        history, now_ns = context.history, context.now_ns
        mask = history.masks.at(small.captured_ns) if controls.person else None
        second = history.matte_input.at(full.captured_ns, now_ns) if controls.needs_matte_input else None
        behind = history.background_input.at(now_ns, now_ns) if controls.needs_background_input else None
        needed = (
            (controls.person, mask),
            (controls.needs_matte_input, second),
            (controls.needs_background_input, behind),
        )
        if any(needs and found is None for needs, found in needed):
            self._state, self._made = "missing", None
            return (frame,)
        self._state = "held" if mask is not None and context.history.masks.held else "on"
        dry = self._fitted(full, frame)
        made = self._matte(dry, small, mask, second, context)
        restyled = restyled_part(made.matte, controls)
        if controls.mask_view:
            return (dataclasses.replace(frame, pixels=seen(made), matte=restyled, alpha=None),)
        alpha = frame.alpha
        if controls.mask_use == ALPHA:
            alpha = restyled if alpha is None else both(alpha, restyled)
        pixels = composed(dry, frame.pixels, made, controls, behind)
        return (dataclasses.replace(frame, pixels=pixels, matte=restyled, alpha=alpha),)

    def _fitted(self, full: Frame, frame: Frame) -> np.ndarray:
        """The pixels of an input frame at the size of the picture."""
        if (full.width, full.height) == (frame.width, frame.height):
            return full.pixels
        if (self._fitter.width, self._fitter.height) != (frame.width, frame.height):
            self._fitter = Fitter(frame.width, frame.height)
        return self._fitter.fit(full)

    def _matte(
        self, dry: np.ndarray, small: Frame, mask: PersonMask | None, second: Picture | None, context: Context
    ) -> Made:
        """The matte of a moment; the last one again if nothing has changed."""
        controls = context.controls.of(MaskControls)
        key = (small.captured_ns, small.seq, mask, second, controls, dry.shape, self._rough)
        if self._made is not None and self._made.key == key:
            return self._made
        as_it_is = controls.mask_source == INPUT and not controls.mask_refine and not controls.mask_grow
        pixels = dry if as_it_is else reduced(small.pixels, *working_size(small))
        height, width = pixels.shape[:2]
        found: list[np.ndarray] = []
        if mask is not None:
            found.append(self._person(mask, small, width, height, context))
        if second is not None:
            given = reduced(second.pixels, width, height)
            found.append(matte.shaped(given, controls.mask_threshold, controls.mask_softness, smooth=False))
        spill = None
        if controls.mask_source.endswith(LUMA):
            grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
            found.append(keys.luma(grey, controls.mask_luma_low, controls.mask_luma_high, controls.mask_key_softness))
        elif controls.mask_source.endswith(CHROMA):
            distance = keys.chroma_distance(pixels, color_of(controls.mask_key))
            found.append(keys.chroma(distance, controls.mask_similarity, controls.mask_key_softness))
            if controls.mask_spill > 0.0:
                spill = keys.spill(distance, controls.mask_similarity, controls.mask_spill)
        inside = found[0] if len(found) == 1 else np.asarray(cv2.min(*found))
        inside = matte.grown(_within(inside, region_of(controls)), controls.mask_grow / 100.0 * height)
        full = self._finished(inside, pixels, dry, controls)
        if spill is not None:
            spill = np.asarray(cv2.min(matte.stretched(spill, dry.shape[1], dry.shape[0]), full))
        if controls.mask_invert:
            full = np.asarray(cv2.bitwise_not(full))
        self._made = Made(key, full, spill, cv2.mean(full)[0] / 255.0)
        return self._made

    def _person(self, mask: PersonMask, small: Frame, width: int, height: int, context: Context) -> np.ndarray:
        """The person mask at the working size, moved to this moment."""
        controls, values = context.controls.of(MaskControls), mask.values
        if mask.captured_ns != small.captured_ns:
            then = context.history.small_at(mask.captured_ns, 0)
            if then is not None and then.pixels.shape == small.pixels.shape:
                values = self._mover.moved(values, mask.region, then, small)
        found = np.zeros((height, width), np.uint8)
        rows, columns = mask.region.slices(width, height)
        part = matte.stretched(values, columns.stop - columns.start, rows.stop - rows.start)
        found[rows, columns] = matte.shaped(part, controls.mask_threshold, controls.mask_softness)
        return found

    def _finished(self, inside: np.ndarray, pixels: np.ndarray, dry: np.ndarray, controls: MaskControls) -> np.ndarray:
        """The matte at the size of the picture, refined or feathered."""
        height, width = dry.shape[:2]
        feather = controls.mask_feather / 100.0 * inside.shape[0]
        refine = controls.mask_refine and not self._rough
        margin = matte.UNSURE if controls.person else matte.TRACES
        guide = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)) if refine else None
        if feather >= 1.0:  # a soft edge needs no fine one
            inside = inside if guide is None else matte.refined(inside, guide, margin)
            return matte.stretched(matte.feathered(inside, feather), width, height)
        if guide is None:
            return matte.stretched(inside, width, height)
        return matte.refined(inside, guide, margin, np.asarray(cv2.cvtColor(dry, cv2.COLOR_RGB2GRAY)))


def working_size(small: Frame) -> tuple[int, int]:
    """Width and height at which the matte of a frame of the model's size is made."""
    shrink = min(1.0, math.sqrt(MOST_PIXELS / (small.width * small.height)))
    return max(1, round(small.width * shrink)), max(1, round(small.height * shrink))


def restyled_part(inside: np.ndarray, controls: MaskControls) -> np.ndarray:
    """The matte of what is restyled, 255 for all of it: the inside or the outside."""
    return np.asarray(cv2.bitwise_not(inside)) if controls.mask_use == OUTSIDE else inside


def seen(made: Made) -> np.ndarray:
    """The matte as a picture: uint8 [H, W, 3]."""
    return np.asarray(cv2.cvtColor(made.matte, cv2.COLOR_GRAY2RGB))


def composed(
    dry: np.ndarray, wet: np.ndarray, made: Made, controls: MaskControls, behind: Picture | None = None
) -> np.ndarray:
    """The picture that is restyled in one part.

    Args:
        dry: the input at the size of the picture, uint8 [H, W, 3].
        wet: the restyled picture.
        made: the matte.
        controls: the controls.
        behind: the picture of the second input that the rest shows, if it does.
    """
    height, width = wet.shape[:2]
    pixels = compose.mixed(dry, wet, controls.mask_mix)
    if controls.mask_use != ALPHA:  # else it is whole, and its alpha cuts it out
        other = dry if behind is None else reduced(behind.pixels, width, height)
        if controls.mask_background == COLOR:
            other = compose.filled(color_of(controls.mask_background_color), width, height)
        rest = compose.mixed(other, wet, controls.mask_rest)
        pixels = compose.blended(rest, pixels, restyled_part(made.matte, controls))
    return pixels if made.spill is None else compose.without_color(pixels, made.spill)


def _within(mask: np.ndarray, region: Region) -> np.ndarray:
    """A mask that is 0 outside of a region."""
    if region.whole:
        return mask
    kept = np.zeros_like(mask)
    box = region.slices(mask.shape[1], mask.shape[0])
    kept[box] = mask[box]
    return kept
