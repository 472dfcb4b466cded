"""The person masks of the last seconds, found by the times of their input frames."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from bridge.pipeline.mask.region import Region

KEPT = 64
"""Most masks that are kept."""

TOLERANCE_NS = 600_000_000
"""How far a mask's time may be from the time asked for, in ns. It is moved on by the motion of the input meanwhile."""


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
