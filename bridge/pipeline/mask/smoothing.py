"""Makes person masks calm: smooths them over time, and holds the last one when the new one has jumped."""

from __future__ import annotations

import numpy as np

from bridge.pipeline.mask.region import Region
from bridge.pipeline.mask.timeline import PersonMask

HOLD_NS = 400_000_000
"""Longest time for which a mask is held, in ns of the input's time."""

SHRUNK, GROWN = 0.4, 2.5
"""A mask has jumped when its area is below or above these multiples of the one before."""

LEAST_AREA = 0.01
"""A mask that covers less than this share of its region is nobody: what comes after it is taken at once."""

GAP_NS = 1_000_000_000
"""After a longer time without a mask, nothing is smoothed or held."""

_LEVELS = np.arange(256, dtype=np.float32) / 255.0
_SURE = np.clip(_LEVELS, 1e-6, 1.0 - 1e-6)
UNSURE = np.square(-_SURE * np.log2(_SURE) - (1.0 - _SURE) * np.log2(1.0 - _SURE)).astype(np.float32)
"""How unsure a probability is, for each of 256 levels: the square of its binary entropy in bits, 0 at 0 and 1, 1 at a
half. MediaPipe weights its smoothing so (segmentation_smoothing_calculator.cc, with a polynomial for it)."""


class Smoother:
    """Smooths one stream of masks. New masks are moved towards the one before where they are unsure; sure places follow
    at once."""

    def __init__(self) -> None:
        self._last: PersonMask | None = None
        self._jumped_ns = 0  # time of the first mask in a row that was not taken; 0 if the last one was

    def forget(self) -> None:
        """Forget all masks."""
        self._last, self._jumped_ns = None, 0

    def next(self, mask: PersonMask, amount: float) -> PersonMask | None:
        """The next mask, smoothed; None if it has jumped and the one before is to be held.

        Args:
            mask: of a later frame than the one before.
            amount: 0..1, how much of the one before an unsure place keeps.
        """
        last = self._last
        if last is not None and _follows(mask, last):
            if self._jumps(mask, last):
                return None
            past = last.values.astype(np.float32)
            weight = UNSURE[mask.values] * np.float32(amount)
            values = mask.values + (past - mask.values) * weight
            mask = PersonMask(mask.captured_ns, np.rint(values).astype(np.uint8), mask.region)
        self._last, self._jumped_ns = mask, 0
        return mask

    def _jumps(self, mask: PersonMask, last: PersonMask) -> bool:
        before, now = _area(last.values), _area(mask.values)
        if before < LEAST_AREA or SHRUNK * before <= now <= GROWN * before:
            return False
        self._jumped_ns = self._jumped_ns or mask.captured_ns
        return mask.captured_ns - self._jumped_ns < HOLD_NS


def _follows(mask: PersonMask, last: PersonMask) -> bool:
    same: Region = last.region
    return mask.region == same and 0 < mask.captured_ns - last.captured_ns <= GAP_NS


def _area(values: np.ndarray) -> float:
    """Share of the mask that is more likely a person than not."""
    return float(np.count_nonzero(values > 127)) / values.size
