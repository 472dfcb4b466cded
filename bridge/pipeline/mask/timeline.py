"""The person masks and the pictures of second inputs of the last seconds, found by their times."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from bridge.pipeline.mask.region import Region

KEPT = 64
"""Most masks, and most pictures of a second input, that are kept."""

TOLERANCE_NS = 600_000_000
"""How far a mask's time may be from the time asked for, in ns. It is moved on by the motion of the input meanwhile."""


LOST_NS = 1_000_000_000
"""After this long without a picture a second input counts as lost, as the input does, in ns."""


@dataclass(frozen=True, slots=True, eq=False)
class PersonMask:
    """The mask of one input frame.

    Attributes:
        captured_ns: of the input frame.
        values: how likely a pixel of the region belongs to a person: uint8 [h, w], 255 for sure.
        region: the part of the picture that it covers.
    """

    captured_ns: int
    values: np.ndarray
    region: Region


class MaskTimeline:
    """Masks in the order of their times. Belongs to the publish thread.

    Attributes:
        held: whether the newest mask was not taken, because it has jumped.
    """

    def __init__(self) -> None:
        self._masks: deque[PersonMask] = deque(maxlen=KEPT)
        self.held = False

    def add(self, mask: PersonMask) -> None:
        """Keep one more mask, of a later frame than those before."""
        self._masks.append(mask)

    def at(self, captured_ns: int, tolerance_ns: int = TOLERANCE_NS) -> PersonMask | None:
        """The mask of the frame captured nearest to this time; None if it is further away than `tolerance_ns`."""
        found = min(self._masks, key=lambda mask: abs(mask.captured_ns - captured_ns), default=None)
        return found if found is not None and abs(found.captured_ns - captured_ns) <= tolerance_ns else None

    def forget(self) -> None:
        """Drop all masks."""
        self._masks.clear()
        self.held = False


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture of a second input.

    Attributes:
        captured_ns: when it was received.
        pixels: uint8 [H, W] or [H, W, 3]; nobody changes it.
    """

    captured_ns: int
    pixels: np.ndarray


class Pictures:
    """The last pictures of a second input, in the order of their times. Written by one thread, read by any.

    Args:
        most_bytes: when they take more than this, the oldest are dropped; the newest one is always kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pictures: tuple[Picture, ...] = ()  # replaced as a whole, so that readers need no lock

    @property
    def last_ns(self) -> int:
        """When the newest one was received; 0 before the first."""
        pictures = self._pictures
        return pictures[-1].captured_ns if pictures else 0

    def add(self, captured_ns: int, pixels: np.ndarray) -> None:
        """Keep one more picture, later than those before."""
        room = max(1, min(KEPT, self._most_bytes // pixels.nbytes))
        self._pictures = (*self._pictures, Picture(captured_ns, pixels))[-room:]

    def at(self, captured_ns: int, now_ns: int) -> Picture | None:
        """The picture received nearest to this time; None if the newest one is older than `LOST_NS` now."""
        pictures = self._pictures
        if not pictures or now_ns - pictures[-1].captured_ns > LOST_NS:
            return None
        return min(pictures, key=lambda picture: abs(picture.captured_ns - captured_ns))

    def forget(self) -> None:
        """Drop all pictures."""
        self._pictures = ()
