"""The canvas: the size of the output, which is a setting of the show and not of the model.

The input is fitted to the canvas once. The engine gets the whole canvas, reduced to the model's size; what it returns
is enlarged to the canvas again. So the restyled picture and the input cover each other to the pixel.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass

from engine.control import NEVER, live
from engine.errors import ConfigError

MODEL, INPUT = "model", "input"

LARGEST_SIDE = 8192
LARGEST_AREA = 3840 * 2160
"""Most pixels of a canvas."""

SAME_SHAPE = 0.04
"""Largest difference between two aspect ratios, as a share, that nobody sees when one is stretched to the other."""

Size = tuple[int, int]
"""Width and height in pixels."""


def check_size(text: str) -> None:
    """Check the value of the control `output_size`.

    Raises:
        ConfigError: it is no size.
    """
    parse(text)


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Size | str:
    """The size that `text` stands for, or one of the words `MODEL` and `INPUT`.

    Raises:
        ConfigError: it is neither a word nor a size such as 1920x1080, or not an even size within the limits.
    """
    word = text.strip().lower()
    if word in (MODEL, INPUT):
        return word
    found = re.fullmatch(r"([0-9]{1,6})\s*[x×*, ]\s*([0-9]{1,6})", word)
    if found is None:
        raise ConfigError(
            f"{text[:40]!r} is no size for the output.", "Write width x height, such as 1920x1080, or model, or input."
        )
    width, height = int(found[1]), int(found[2])
    if width % 2 or height % 2 or not (2 <= width <= LARGEST_SIDE and 2 <= height <= LARGEST_SIDE):
        raise ConfigError(f"The output cannot be {width}x{height}.", f"Use even numbers from 2 to {LARGEST_SIDE}.")
    if width * height > LARGEST_AREA:
        raise ConfigError(
            f"The output cannot be {width}x{height}.", f"Use at most as many pixels as 3840x2160: {LARGEST_AREA}."
        )
    return width, height


def canvas_size(setting: str, model: Size, source: Size) -> Size:
    """The canvas in pixels; both numbers are even, unless it is the model's size.

    Args:
        setting: a value of the control `output_size`.
        model: the model's size.
        source: the size of the input's frames. As a canvas it is rounded down to even numbers, and reduced if it has
            more than `LARGEST_AREA` pixels.
    """
    wanted = parse(setting)
    if wanted == MODEL:
        return model
    if isinstance(wanted, tuple):
        return wanted
    shrink = min(1.0, math.sqrt(LARGEST_AREA / (source[0] * source[1])), LARGEST_SIDE / max(source))
    width, height = (max(2, int(side * shrink) // 2 * 2) for side in source)
    return width, height


def same_shape(one: Size, other: Size) -> bool:
    """Whether a picture of one size can be stretched to the other without being seen to be distorted."""
    ratio = one[0] * other[1] / (one[1] * other[0])
    return abs(ratio - 1.0) <= SAME_SHAPE


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasControls:
    """The size of the output."""

    output_size: str = live(
        MODEL,
        "/output/size",
        "Size of the output: width x height such as 1920x1080, input for the source's size, or model for the model's.",
        group="Video",
        label="Output size",
        stored=NEVER,
        check=check_size,
    )
