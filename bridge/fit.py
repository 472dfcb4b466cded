"""Brings a picture of any size and channel order to the model's size. Knows numpy and PyAV's scaler only."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from engine.frame import Frame, PixelFormat

_NAMES = {PixelFormat.RGB: "rgb24", PixelFormat.RGBA: "rgba", PixelFormat.BGRA: "bgra"}


class Fitter:
    """Scales frames to one size. Belongs to one thread (the scaler keeps its tables between frames).

    Args:
        width, height: wanted size in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._scaler = VideoReformatter()

    def fit(self, frame: Frame, how: str, mirror: bool) -> np.ndarray:
        """The picture as RGB at the wanted size.

        Args:
            frame: any size and format; alpha is ignored.
            how: "cover" cuts what sticks out, "contain" adds black bars, "stretch" distorts.
            mirror: flip left and right.

        Returns:
            uint8 [height, width, 3], C-contiguous; it never shares memory with the frame.
        """
        pixels = frame.pixels
        inner = (self.width, self.height)
        if how == "cover":
            pixels = _cut(pixels, self.width / self.height)
        elif how == "contain":
            scale = min(self.width / frame.width, self.height / frame.height)
            inner = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        picture = self._scale(np.ascontiguousarray(pixels), _NAMES[frame.format], *inner)
        if inner != (self.width, self.height):
            left, top = (self.width - inner[0]) // 2, (self.height - inner[1]) // 2
            framed = np.zeros((self.height, self.width, 3), np.uint8)
            framed[top : top + inner[1], left : left + inner[0]] = picture
            picture = framed
        return np.ascontiguousarray(picture[:, ::-1]) if mirror else picture

    def _scale(self, pixels: np.ndarray, name: str, width: int, height: int) -> np.ndarray:
        if name == "rgb24" and pixels.shape[:2] == (height, width):
            return pixels.copy()
        source = av.VideoFrame.from_ndarray(pixels, format=name)
        scaled = self._scaler.reformat(source, width=width, height=height, format="rgb24", interpolation="BILINEAR")
        return scaled.to_ndarray()


def _cut(pixels: np.ndarray, aspect: float) -> np.ndarray:
    """The largest part around the middle with the wanted width / height."""
    height, width = pixels.shape[:2]
    if width / height > aspect:
        keep = max(1, round(height * aspect))
        left = (width - keep) // 2
        return pixels[:, left : left + keep]
    keep = max(1, round(width / aspect))
    top = (height - keep) // 2
    return pixels[top : top + keep]
