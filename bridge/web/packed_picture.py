"""Pictures of any proportions in a frame ring, all of whose frames have one size.

The rows of a picture lie one behind the other from the first pixel of the ring's frame on, as far as they reach, and
the metadata say its size.
"""

from __future__ import annotations

import numpy as np

from engine.frame import Frame

SIZE = "size"
"""Key of the metadata: width and height, such as "640x360"; missing if the picture has the size of the ring."""

METADATA_BYTES = 32
"""Longest metadata that a ring needs for this."""


def packed(pixels: np.ndarray, seq: int, room: np.ndarray) -> Frame:
    """A frame of the ring's size that holds a picture.

    Args:
        pixels: uint8 [H, W, 3], with at most as many pixels as `room`.
        seq: the number of the frame.
        room: uint8 of the ring's size, C-contiguous; the frame may have it, so it is used again only after the frame
            was put into the ring.
    """
    if pixels.shape == room.shape:
        return Frame(pixels, seq=seq)
    height, width = pixels.shape[:2]
    room.reshape(-1)[: pixels.size].reshape(pixels.shape)[:] = pixels
    return Frame(room, seq=seq, metadata={SIZE: f"{width}x{height}"})


def unpacked(frame: Frame) -> np.ndarray:
    """The picture in a frame of a ring, uint8 [H, W, 3]."""
    if SIZE not in frame.metadata:
        return frame.pixels
    width, height = map(int, frame.metadata[SIZE].split("x"))
    return frame.pixels.reshape(-1)[: height * width * 3].reshape(height, width, 3)
