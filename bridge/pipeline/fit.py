"""Scales pictures of any size and channel order to one size."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from av.video.reformatter import VideoReformatter

from bridge.pipeline.canvas.scaling import reduced
from bridge.video.pixels import converted
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

    def fit(self, frame: Frame, how: str = "cover", mirror: bool = False) -> np.ndarray:
        """The picture as RGB at the wanted size.

        Args:
            frame: any size and format; alpha is ignored.
            how: "cover" crops to the aspect ratio, "contain" adds black bars, "stretch" distorts.
            mirror: flip left and right.

        Returns:
            uint8 [height, width, 3], C-contiguous; the frame's own array if nothing has to be changed.

        Raises:
            ValueError: an unknown `how`.
        """
        return self._placed(frame.pixels, how, mirror, functools.partial(self._scale, frame.format))

    def fit_alpha(self, alpha: np.ndarray, how: str = "cover", mirror: bool = False) -> np.ndarray:
        """The alpha of a picture, fitted as the picture is; the bars of "contain" are transparent.

        Args:
            alpha: uint8 [H, W].
            how, mirror: as in `fit`.

        Returns:
            uint8 [height, width]; the given array itself if nothing has to be changed.
        """
        return self._placed(alpha, how, mirror, reduced)

    def _placed(
        self, pixels: np.ndarray, how: str, mirror: bool, scaled: Callable[[np.ndarray, int, int], np.ndarray]
    ) -> np.ndarray:
        """A picture or a plane, cropped, scaled, within bars, mirrored."""
        size = self.width, self.height
        height, width = pixels.shape[:2]
        if how == "cover":
            pixels = _crop(pixels, self.width / self.height)
        elif how == "contain":
            scale = min(self.width / width, self.height / height)
            size = max(1, round(width * scale)), max(1, round(height * scale))
        elif how != "stretch":
            raise ValueError(f"fit must be cover, contain or stretch, got {how!r}")
        picture = np.ascontiguousarray(scaled(pixels, *size))
        if size != (self.width, self.height):
            left, top = (self.width - size[0]) // 2, (self.height - size[1]) // 2
            framed = np.zeros((self.height, self.width, *picture.shape[2:]), np.uint8)
            framed[top : top + size[1], left : left + size[0]] = picture
            picture = framed
        if mirror:
            # Moving whole pixels is three times faster than single bytes.
            whole = picture.view("V3") if picture.ndim == 3 else picture
            picture = np.ascontiguousarray(whole[:, ::-1]).view(np.uint8).reshape(picture.shape)
        return picture

    def _scale(self, kind: PixelFormat, pixels: np.ndarray, width: int, height: int) -> np.ndarray:
        if kind is PixelFormat.RGB and pixels.shape[:2] == (height, width):
            return pixels
        return converted(self._scaler, pixels, _NAMES[kind], width, height, "rgb24", 3)


def _crop(pixels: np.ndarray, aspect: float) -> np.ndarray:
    """The largest centred part with the aspect ratio width / height, as a view."""
    height, width = pixels.shape[:2]
    if width / height > aspect:
        keep = max(1, round(height * aspect))
        left = (width - keep) // 2
        return pixels[:, left : left + keep]
    keep = max(1, round(width / aspect))
    top = (height - keep) // 2
    return pixels[top : top + keep]
