"""The person masks between the capture thread, the engine process and the stage `mask`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from bridge.control.store import ControlStore
from bridge.pipeline.canvas.scaling import reduced
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.mask.controls import MaskControls
from bridge.pipeline.mask.region import KEY, Region, parsed, region_of
from bridge.pipeline.mask.smoothing import Smoother
from bridge.pipeline.mask.timeline import PersonMask
from bridge.process.engine.mask_rings import MASK_SIZE
from engine.frame import Frame

MISSING_NS = 5_000_000_000
"""When frames have been sent for this long and no mask has come, it is said, in ns. The first one takes longer: torch
and the network are loaded then."""

FED_NS = 1_000_000_000
"""After this long without an input frame no mask is expected, in ns."""

MISSING = "No person mask has come for {:.0f} s. The whole picture is restyled until one comes."


class Masks(Protocol):
    """The rings to and from the engine process; see `bridge.process.engine.mask_rings.MaskRings`."""

    def put(self, frame: Frame) -> None:
        """Queue a frame."""

    def take(self) -> list[tuple[Frame, np.ndarray]]:
        """The masks that have come."""


def squeezed(small: Frame, region: Region) -> np.ndarray:
    """A region of an input frame at the size of the network, whatever its proportions: uint8 [144, 256, 3]."""
    return np.ascontiguousarray(reduced(small.pixels[region.slices(small.width, small.height)], *MASK_SIZE))


class PersonMasks:
    """Sends every input frame to be masked while a person mask is wanted, and keeps the masks in the history.

    Args:
        rings: to the engine process and back.
        history: where masks are kept.
        store: live controls.
        tell: called with (topic, text) when masks do not come.
    """

    def __init__(
        self, rings: Masks, history: FrameHistory, store: ControlStore, tell: Callable[[str, str], None]
    ) -> None:
        self._rings = rings
        self._history = history
        self._store = store
        self._tell = tell
        self._smoother = Smoother()
        self._waits_ns = 0  # since when a mask is waited for; 0 for not
        self._told = False
        self._fed_ns = 0  # when the last frame was sent to be masked

    def feed(self, small: Frame) -> None:
        """Have an input frame masked, if a person mask is wanted. Called on the source's thread.

        Args:
            small: RGB, at the model's size.
        """
        controls = self._store.snapshot.of(MaskControls)
        if not controls.person:
            return
        region = region_of(controls)
        self._fed_ns = small.captured_ns
        self._rings.put(dataclasses.replace(small, pixels=squeezed(small, region), metadata={KEY: str(region)}))

    def collect(self, running: bool, now_ns: int) -> None:
        """Take the masks that have come. Called on the publish thread, at every tick.

        Args:
            running: whether there is an engine process.
            now_ns: the time.
        """
        controls, masks = self._store.snapshot.of(MaskControls), self._history.masks
        if not controls.person:
            self._smoother.forget()
            masks.forget()
            self._waits_ns, self._told = 0, False
            return
        came = self._rings.take()
        for frame, values in came:
            mask = PersonMask(frame.captured_ns, values, parsed(frame.metadata[KEY]))
            smoothed = self._smoother.next(mask, controls.mask_smooth)
            masks.held = smoothed is None
            if smoothed is not None:
                masks.add(smoothed)
        if came or not running or now_ns - self._fed_ns > FED_NS:
            self._waits_ns, self._told = 0, False
            return
        self._waits_ns = self._waits_ns or now_ns
        if now_ns - self._waits_ns > MISSING_NS and not self._told:
            self._told = True
            self._tell("mask", MISSING.format(MISSING_NS / 1e9))
