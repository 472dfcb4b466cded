"""Brings pictures of any size and channel order to the model's size, from and to the layouts that NDI has.

Uses the scaler of PyAV (libswscale), which works on the arrays in place, without the interpreter's lock. Knows frames,
and neither transports nor models.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from engine.frame import Frame, PixelFormat

_NAMES = {PixelFormat.RGB: "rgb24", PixelFormat.RGBA: "rgba", PixelFormat.BGRA: "bgra"}
_LEAST = 2
"""Pixels along each side below which the scaler refuses a picture."""


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
            how: "cover" cuts off what sticks out, "contain" adds black bars, "stretch" distorts.
            mirror: flip left and right.

        Returns:
            uint8 [height, width, 3], C-contiguous; the frame's own array where there is nothing to do.

        Raises:
            ValueError: an unknown `how`.
        """
        size = self.width, self.height
        pixels = frame.pixels
        if how == "cover":
            pixels = _cut(pixels, self.width / self.height)
        elif how == "contain":
            scale = min(self.width / frame.width, self.height / frame.height)
            size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        elif how != "stretch":
            raise ValueError(f"fit must be cover, contain or stretch, got {how!r}")
        picture = self._scale(pixels, frame.format, *size)
        if size != (self.width, self.height):
            left, top = (self.width - size[0]) // 2, (self.height - size[1]) // 2
            framed = np.zeros((self.height, self.width, 3), np.uint8)
            framed[top : top + size[1], left : left + size[0]] = picture
            picture = framed
        if mirror:
            whole = picture.view("V3")[:, ::-1]  # move whole pixels: three times faster than single bytes
            picture = np.ascontiguousarray(whole).view(np.uint8).reshape(self.height, self.width, 3)
        return picture

    def _scale(self, pixels: np.ndarray, kind: PixelFormat, width: int, height: int) -> np.ndarray:
        if kind is PixelFormat.RGB and pixels.shape[:2] == (height, width):
            return np.ascontiguousarray(pixels)
        return _converted(self._scaler, pixels, _NAMES[kind], width, height, "rgb24", 3)


class Unpacker:
    """Turns the pictures that come over NDI into RGB. Belongs to one thread.

    In two steps, because libswscale has fast ways for both and none for the whole: 0.7 ms for 1280x720, where NDI's own
    conversion takes 2.3.
    """

    def __init__(self) -> None:
        self._packed: av.VideoFrame | None = None
        self._apart, self._colour = VideoReformatter(), VideoReformatter()

    def rgb(self, pixels: np.ndarray) -> np.ndarray:
        """The picture as RGB.

        Args:
            pixels: uint8 [height, width, 2], UYVY 4:2:2, BT.709, 16..235; the width is even.

        Returns:
            uint8 [height, width, 3], C-contiguous, 0..255, in memory of its own.
        """
        height, width = pixels.shape[:2]
        frame = self._packed
        if frame is None or (frame.width, frame.height) != (width, height):
            frame = self._packed = av.VideoFrame(width, height, "uyvy422")
        _rows(frame, width * 2)[:] = pixels.reshape(height, width * 2)
        planes = self._apart.reformat(frame, format="yuv422p")
        picture = self._colour.reformat(planes, format="rgb24", src_colorspace=Colorspace.ITU709)
        return np.ascontiguousarray(_rows(picture, width * 3)).reshape(height, width, 3)


class Widener:
    """Makes four-channel copies of frames. Belongs to one thread."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def widen(self, frame: Frame) -> tuple[np.ndarray, PixelFormat]:
        """The frame's pixels in memory of their own, with four channels.

        Returns:
            uint8 [height, width, 4], C-contiguous, and its format: RGBA (opaque) for an RGB frame, else the frame's.
        """
        if frame.format is not PixelFormat.RGB:
            return np.array(frame.pixels, order="C"), frame.format
        pixels = _converted(self._scaler, frame.pixels, "rgb24", frame.width, frame.height, "rgba", 4)
        return pixels, PixelFormat.RGBA


def _converted(
    scaler: VideoReformatter, pixels: np.ndarray, source: str, width: int, height: int, wanted: str, channels: int
) -> np.ndarray:
    if min(pixels.shape[0], pixels.shape[1], width, height) < _LEAST:
        rows = np.arange(height) * pixels.shape[0] // height
        columns = np.arange(width) * pixels.shape[1] // width
        order = [2, 1, 0] if source == "bgra" else [0, 1, 2]
        small = pixels[rows][:, columns][:, :, order]
        return np.ascontiguousarray(small if channels == 3 else np.insert(small, 3, 255, axis=2))
    view = av.VideoFrame.from_numpy_buffer(pixels, format=source)
    frame = scaler.reformat(view, width=width, height=height, format=wanted, interpolation="BILINEAR")
    return np.ascontiguousarray(_rows(frame, width * channels)).reshape(height, width, channels)


def _rows(frame: av.VideoFrame, used: int) -> np.ndarray:
    """The first plane of a frame as uint8 [height, used bytes of each row]; a view."""
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, :used]


def _cut(pixels: np.ndarray, aspect: float) -> np.ndarray:
    """The largest part around the middle with the wanted width / height, as a view."""
    height, width = pixels.shape[:2]
    if width / height > aspect:
        keep = max(1, round(height * aspect))
        left = (width - keep) // 2
        return pixels[:, left : left + keep]
    keep = max(1, round(width / aspect))
    top = (height - keep) // 2
    return pixels[top : top + keep]
