"""Converts the channel order, layout and size of pictures, with PyAV's scaler (libswscale).

The scaler reads the arrays without copying them and releases the GIL.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from bridge.video.alpha import premultiplied, rgba
from engine.frame import Frame, PixelFormat

_LEAST = 2
"""Smallest width and height that the scaler accepts, in pixels."""


class UyvyConverter:
    """Converts UYVY pictures, as NDI gives them, to RGB. Use it from one thread.

    The conversion goes through planar YUV, because libswscale has fast paths for both steps and none for UYVY to RGB:
    it takes 0.7 ms for 1280x720, NDI's own conversion 2.3 ms.
    """

    def __init__(self) -> None:
        self._packed: av.VideoFrame | None = None
        self._to_planes, self._to_rgb = VideoReformatter(), VideoReformatter()

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
        planes = self._to_planes.reformat(frame, format="yuv422p")
        picture = self._to_rgb.reformat(planes, format="rgb24", src_colorspace=Colorspace.ITU709)
        return np.ascontiguousarray(_rows(picture, width * 3)).reshape(height, width, 3)


class FourChannelConverter:
    """Makes four-channel copies of frames. Use it from one thread."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def copy(self, frame: Frame) -> tuple[np.ndarray, PixelFormat]:
        """A copy of the frame's pixels with four channels.

        Returns:
            uint8 [height, width, 4], C-contiguous, and its format: RGBA for an RGB frame, opaque or with the frame's
            alpha as it is to be sent; else the frame's.
        """
        if frame.alpha is not None:
            pixels = rgba(frame.pixels, frame.alpha)
            return (premultiplied(pixels, into=pixels) if frame.premultiply else pixels), PixelFormat.RGBA
        if frame.format is not PixelFormat.RGB:
            return np.array(frame.pixels, order="C"), frame.format
        pixels = converted(self._scaler, frame.pixels, "rgb24", frame.width, frame.height, "rgba", 4)
        return pixels, PixelFormat.RGBA


def converted(
    scaler: VideoReformatter, pixels: np.ndarray, source: str, width: int, height: int, wanted: str, channels: int
) -> np.ndarray:
    """A picture in another size and channel order.

    Args:
        scaler: caches its tables for pictures of the same size and format.
        pixels: uint8 [H, W, channels of `source`], C-contiguous rows.
        source: libswscale's name of the given channel order: rgb24, rgba or bgra.
        width, height: wanted size in pixels, at least 1.
        wanted: libswscale's name of the wanted channel order: rgb24 or rgba.
        channels: number of channels of `wanted`.

    Returns:
        uint8 [height, width, channels], C-contiguous, in memory of its own.
    """
    if min(pixels.shape[0], pixels.shape[1], width, height) < _LEAST:
        down = np.arange(height) * pixels.shape[0] // height
        across = np.arange(width) * pixels.shape[1] // width
        order = [2, 1, 0] if source == "bgra" else [0, 1, 2]
        small = pixels[down][:, across][:, :, order]
        return np.ascontiguousarray(small if channels == 3 else np.insert(small, 3, 255, axis=2))
    view = av.VideoFrame.from_numpy_buffer(pixels, format=source)
    frame = scaler.reformat(view, width=width, height=height, format=wanted, interpolation="BILINEAR")
    return np.ascontiguousarray(_rows(frame, width * channels)).reshape(height, width, channels)


def _rows(frame: av.VideoFrame, used: int) -> np.ndarray:
    """The first plane of a frame as uint8 [height, used bytes of each row]; a view."""
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, :used]
