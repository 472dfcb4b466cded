"""A video frame, as every part of the program passes it on. Imports neither torch nor a transport."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


class PixelFormat(enum.StrEnum):
    """Order of the 8-bit channels in memory. The last channel of `RGBA` and `BGRA` is alpha (255 = opaque)."""

    RGB = "rgb"
    RGBA = "rgba"
    BGRA = "bgra"

    @property
    def channels(self) -> int:
        """Bytes per pixel."""
        return 3 if self is PixelFormat.RGB else 4


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An image with timestamps. Do not change a frame once it is queued; it has one owner at a time.

    Attributes:
        pixels: uint8 array [height, width, channels], C-contiguous.
        format: channel order of `pixels`.
        pts_ns: presentation timestamp of the source in ns; increases, and differences are the frame period.
        captured_ns: `time.monotonic_ns()` when the frame was received.
        seq: number of the frame, counted from 0 without gaps by the code that captured it.
        metadata: short strings that belong to the frame (for example NDI metadata).
        moved_ns: `captured_ns` of the input frame whose motion a restyled frame shows, if it was moved on to a later
            one than its own; else 0.
        matte: how much of each pixel belongs to the part that is restyled, if a mask divides the picture: uint8
            [height, width], 255 for all of it; else None. It stays in the process.
        alpha: how opaque each pixel of an RGB picture is: uint8 [height, width], 255 for opaque. `pixels` hold the
            whole picture, also where it is transparent (straight alpha). None where nobody asked for transparency.
        premultiply: whether outputs multiply the colours by `alpha` before they send them.

    Raises:
        ValueError: if the array is not uint8 [height, width, channels of `format`], or `alpha` does not fit to it.
    """

    pixels: np.ndarray
    format: PixelFormat = PixelFormat.RGB
    pts_ns: int = 0
    captured_ns: int = 0
    seq: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    moved_ns: int = 0
    matte: np.ndarray | None = None
    alpha: np.ndarray | None = None
    premultiply: bool = False

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != self.format.channels:
            raise ValueError(
                f"a {self.format.value} frame needs a uint8 array [height, width, {self.format.channels}], "
                f"got {self.pixels.dtype} {list(shape)}"
            )
        alpha = self.alpha
        if alpha is not None and (
            self.format is not PixelFormat.RGB or alpha.dtype != np.uint8 or alpha.shape != shape[:2]
        ):
            raise ValueError(
                f"the alpha of a {self.format.value} frame {list(shape)} is {alpha.dtype} {list(alpha.shape)}; "
                "it must be uint8 [height, width], of an rgb frame"
            )

    @property
    def shows_ns(self) -> int:
        """`captured_ns` of the input frame whose motion it shows."""
        return self.moved_ns or self.captured_ns

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    def rgb(self) -> np.ndarray:
        """The picture as a uint8 array [height, width, 3] in red, green, blue order (a view where possible)."""
        if self.format is PixelFormat.BGRA:
            return self.pixels[:, :, 2::-1]
        return self.pixels[:, :, :3]
