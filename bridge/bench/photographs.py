"""Photographs with people whose outlines are known, for `bench mask` and its tests. They come with scikit-image.

The outlines were traced by hand, to about three pixels of the photographs' 512. Where it is a matter of taste whether
something belongs to the person (a helmet in the arm, a camera before the face), nothing is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from engine.errors import ConfigError

SIDE = 512
"""Width and height of both photographs in pixels."""

Points = tuple[tuple[int, int], ...]

_ASTRONAUT: Points = (
    (40, 511), (28, 470), (20, 405), (24, 375), (36, 325), (45, 285), (62, 258), (88, 228), (112, 208), (113, 190),
    (122, 168), (140, 154), (166, 150), (184, 150), (180, 126), (163, 116), (154, 92), (156, 68), (172, 42), (200, 22),
    (232, 14), (262, 21), (288, 42), (300, 72), (299, 98), (288, 118), (276, 130), (270, 150), (262, 176), (280, 188),
    (295, 210), (304, 238), (330, 250), (346, 278), (354, 310), (360, 350), (335, 366), (308, 392), (288, 425),
    (280, 470), (283, 511),
)  # fmt: skip
_HELMET: Points = ((270, 511), (270, 430), (300, 380), (350, 338), (420, 338), (511, 420), (511, 511))
_CAMERAMAN: Points = (
    (0, 511), (0, 250), (20, 225), (45, 185), (60, 160), (75, 140), (105, 128), (135, 115), (155, 105), (165, 85),
    (185, 70), (210, 65), (235, 72), (255, 85), (268, 105), (270, 125), (258, 135), (255, 150), (256, 170), (243, 185),
    (235, 195), (245, 208), (250, 222), (268, 225), (275, 240), (287, 270), (283, 290), (265, 303), (240, 311),
    (222, 303), (210, 290), (190, 320), (170, 350), (145, 380), (148, 420), (150, 470), (150, 511),
)  # fmt: skip
_CAMERA: Points = ((248, 130), (340, 130), (340, 250), (270, 250), (248, 215))


@dataclass(frozen=True, slots=True, eq=False)
class Photograph:
    """A picture and who is in it.

    Attributes:
        name: of the picture.
        pixels: RGB, uint8 [H, W, 3].
        person: uint8 [H, W], 255 where the person is.
        counted: bool [H, W], false where it is a matter of taste.
    """

    name: str
    pixels: np.ndarray
    person: np.ndarray
    counted: np.ndarray


def photographs() -> tuple[Photograph, Photograph]:
    """A woman in a space suit, half length, and a man with a camera, from head to knee and in black and white.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise ConfigError("The photographs come with scikit-image.", "pip install scikit-image") from None
    read: Any = data  # its functions have no annotations
    grey = np.asarray(read.camera())
    return (
        _photograph("astronaut", np.asarray(read.astronaut()), _ASTRONAUT, _HELMET),
        _photograph("cameraman", np.dstack([grey] * 3), _CAMERAMAN, _CAMERA),
    )


def _photograph(name: str, pixels: np.ndarray, person: Points, taste: Points) -> Photograph:
    return Photograph(name, np.ascontiguousarray(pixels), _drawn(person), _drawn(taste) == 0)


def _drawn(points: Points) -> np.ndarray:
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(drawn, [np.array(points, np.int32)], 255)
    return drawn


def film(width: int, height: int, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The woman in the space suit, cut out, moves from side to side before a drawn hall; with her true mask.

    Args:
        width, height: of the pictures.
        frames: how many; she moves by up to a 60th of the width from one to the next.

    Yields:
        A picture, uint8 [height, width, 3], and its mask, uint8 [height, width].
    """
    woman = photographs()[0]
    side = round(0.95 * height)
    figure = cv2.resize(woman.pixels, (side, side), interpolation=cv2.INTER_AREA)
    cut = cv2.resize(cv2.GaussianBlur(woman.person, (5, 5), 0), (side, side), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    hall = np.stack(
        (60 + 60 * y / height, 70 + 30 * np.sin(x / width * 19), 110 + 50 * np.sin(x / width * 7 + y / height * 5)), -1
    ).astype(np.uint8)
    for n in range(frames):
        left = round(width / 2 - 0.35 * side + 0.2 * width * np.sin(n / 12))
        move = np.array([[1, 0, left - 0.1 * side], [0, 1, height - side]], np.float32)
        shown = cv2.warpAffine(figure, move, (width, height), borderMode=cv2.BORDER_CONSTANT)
        mask = cv2.warpAffine(cut, move, (width, height), borderMode=cv2.BORDER_CONSTANT)
        share = mask[:, :, None].astype(np.float32) / 255.0
        yield (hall + (shown - hall.astype(np.float32)) * share).astype(np.uint8), np.asarray(mask)
