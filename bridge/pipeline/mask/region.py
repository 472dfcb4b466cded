"""The part of the picture in which the matte is looked for."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.pipeline.mask.controls import MaskControls

LEAST = 0.05
"""Smallest width and height of a region, as a share of the picture's."""

KEY = "region"
"""Key of a frame's metadata under which its region travels to the engine process and back."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle, in shares of the picture's width and height.

    Attributes:
        left, top, right, bottom: its ends, 0..1.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether it is the whole picture."""
        return (self.left, self.top, self.right, self.bottom) == (0.0, 0.0, 1.0, 1.0)

    def slices(self, width: int, height: int) -> tuple[slice, slice]:
        """Rows and columns of a picture of this size; at least one pixel each way."""
        top, bottom = _span(self.top, self.bottom, height)
        left, right = _span(self.left, self.right, width)
        return slice(top, bottom), slice(left, right)

    def __str__(self) -> str:
        return f"{self.left:.4f} {self.top:.4f} {self.right:.4f} {self.bottom:.4f}"


def region_of(controls: MaskControls) -> Region:
    """The region that the controls name. Ends that are exchanged are put in order; no side is shorter than `LEAST`."""
    left, right = _ends(controls.mask_left, controls.mask_right)
    top, bottom = _ends(controls.mask_top, controls.mask_bottom)
    return Region(left, top, right, bottom)


def parsed(text: str) -> Region:
    """The region that `str` wrote."""
    left, top, right, bottom = map(float, text.split())
    return Region(left, top, right, bottom)


def _ends(one: float, other: float) -> tuple[float, float]:
    low, high = min(one, other), max(one, other)
    if high - low < LEAST:
        low = min(max(0.0, (low + high - LEAST) / 2), 1.0 - LEAST)
        high = low + LEAST
    return low, high


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    start = min(round(low * size), size - 1)
    return start, max(start + 1, round(high * size))
