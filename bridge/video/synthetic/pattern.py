"""Moving test pictures, to try and measure everything without a camera.

`pattern:bars`     colour bars with a moving line and the frame's number
`pattern:counter`  the frame's number in large figures, with a hand that turns once a second
`pattern:waves`    slow coloured waves
`pattern:dance`    dancers on a stage, for a demonstration without a camera

A picture depends only on its number, size and rate. Bars and counter also carry the number as a strip of black and
white cells along the bottom, which survives scaling and lossy compression; `read_counter` decodes it.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bridge.video.base import DEFAULT_FPS, Options, Source, SourceInfo
from bridge.video.synthetic.dance import dance
from bridge.video.ticker import Ticker
from engine.errors import TransportError
from engine.frame import Frame, PixelFormat

BARS: tuple[tuple[int, int, int], ...] = (
    (235, 235, 235),
    (235, 235, 16),
    (16, 235, 235),
    (16, 235, 16),
    (235, 16, 235),
    (235, 16, 16),
    (16, 16, 235),
    (16, 16, 16),
)
"""Colours of the bars from left to right: white, yellow, cyan, green, magenta, red, blue, black."""

CELLS = 32
"""Cells of the counter strip: 24 bits of the number, most significant first, then an 8-bit checksum."""

_CHECK = 0x9E3779B1


def read_counter(pixels: np.ndarray) -> int | None:
    """The number that a frame of `pattern:bars` or `pattern:counter` carries in its strip.

    Args:
        pixels: uint8 [height, width, 3 or 4], the whole picture, scaled or not.

    Returns:
        The number modulo 2**24, or None if there is no strip or it is damaged.
    """
    height, width = pixels.shape[:2]
    row = height - max(1, _strip_height(height) // 2)
    columns = (2 * np.arange(CELLS) + 1) * width // (2 * CELLS)
    bits = pixels[row, columns, :3].mean(axis=1) > 128
    value = int.from_bytes(np.packbits(bits).tobytes(), "big")
    number, check = value >> 8, value & 0xFF
    return number if check == _check_sum(number) else None


def _check_sum(number: int) -> int:
    return ((number + 1) * _CHECK >> 16) & 0xFF


def _strip_height(height: int) -> int:
    return max(2, height // 16)


def draw_strip(pixels: np.ndarray, number: int) -> None:
    """Draw the strip of a number at the bottom of a picture, for `read_counter`.

    Args:
        pixels: uint8 [height, width, channels], changed in place, in all channels (alpha included).
        number: drawn modulo 2**24.
    """
    height, width = pixels.shape[:2]
    number %= 1 << 24
    value = number << 8 | _check_sum(number)
    bits = np.unpackbits(np.frombuffer(value.to_bytes(4, "big"), np.uint8))
    row = np.repeat(bits, -(-width // CELLS))[:width] if width % CELLS == 0 else bits[_cell_of(width)]
    line = np.repeat(np.where(row, 235, 16).astype(np.uint8), pixels.shape[2]).reshape(1, width, -1)
    pixels[height - _strip_height(height) :] = line


@functools.cache
def _cell_of(width: int) -> np.ndarray:
    return np.arange(width) * CELLS // width


@functools.cache
def _figures(height: int) -> list[np.ndarray]:
    """White figures 0 to 9 on black, each uint8 [height, width of the widest]."""
    font = ImageFont.load_default(height)
    width = max(int(font.getlength(str(figure))) + 2 for figure in range(10))
    made = []
    for figure in range(10):
        image = Image.new("L", (width, height))
        ImageDraw.Draw(image).text((width // 2, height // 2), str(figure), 255, font, "mm")
        made.append(np.asarray(image))
    return made


def _write_number(pixels: np.ndarray, number: int, top: int, height: int, digits: int) -> None:
    """Brighten the picture where the figures of a number are, centred."""
    shapes = np.concatenate([_figures(height)[int(c)] for c in f"{number % 10**digits:0{digits}d}"], axis=1)
    shapes = shapes[: pixels.shape[0] - top, : pixels.shape[1]]
    left = (pixels.shape[1] - shapes.shape[1]) // 2
    area = pixels[top : top + shapes.shape[0], left : left + shapes.shape[1]]
    np.maximum(area, shapes[:, :, None], out=area)


@functools.lru_cache(4)
def _bars(width: int, height: int) -> np.ndarray:
    columns = np.asarray(BARS, np.uint8)[np.arange(width) * len(BARS) // width]
    return np.broadcast_to(columns, (height, width, 3)).copy()


def bars(number: int, width: int, height: int, fps: Fraction) -> np.ndarray:
    """Colour bars, with a white line that crosses the picture in four seconds in the lower half."""
    pixels = _bars(width, height).copy()
    line = int(number / float(fps) / 4.0 % 1.0 * width)
    thick = max(2, width // 160)
    pixels[height // 2 : height * 5 // 8, line : line + thick] = 255
    box = max(8, height // 8)
    top = height * 5 // 8
    pixels[top : top + box] //= 4
    _write_number(pixels, number, top, box, 6)
    draw_strip(pixels, number)
    return pixels


def counter(number: int, width: int, height: int, fps: Fraction) -> np.ndarray:
    """The number in large figures over a hand that turns once a second."""
    image = Image.new("RGB", (width, height), (18, 22, 34))
    draw = ImageDraw.Draw(image)
    radius = 0.42 * min(width, height * 15 // 16)
    x, y = width / 2, height * 15 / 32
    turn = 360.0 * (number / float(fps) % 1.0) - 90.0
    draw.pieslice((x - radius, y - radius, x + radius, y + radius), -90.0, turn, (32, 92, 120))
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(90, 140, 160), width=max(1, width // 200))
    pixels = np.array(image)
    tall = max(8, height // 5)
    _write_number(pixels, number, max(0, int(y) - tall // 2), tall, 6)
    draw_strip(pixels, number)
    return pixels


@functools.lru_cache(4)
def _wave_fields(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth periodic fields, uint8 [height / 2, width / 2]; the second is repeated once in width."""
    y, x = np.mgrid[0 : (height + 1) // 2, 0 : (width + 1) // 2].astype(np.float32)
    u, v = 2 * math.pi * x / x.shape[1], 2 * math.pi * y / y.shape[0]
    first = 36 * np.sin(u + 1.3 * np.sin(v)) + 36 * np.sin(2 * v + 1.1 * np.cos(u))
    second = 50 * np.sin(2 * u - v + 1.2 * np.sin(v + u))
    return (first + 128).astype(np.uint8), np.tile((second + 128).astype(np.uint8), (1, 2))


@functools.cache
def _wave_colours() -> np.ndarray:
    """The colour of every value, uint8 [256, 1, 3]."""
    phase = np.arange(256, dtype=np.float32)[:, None] * (2 * math.pi / 256) + np.asarray([0.0, 2.1, 4.2])
    colours: np.ndarray = 127.5 + 110 * np.sin(phase)
    return np.round(colours).astype(np.uint8)[:, None]


def waves(number: int, width: int, height: int, fps: Fraction) -> np.ndarray:
    """Slow coloured waves that repeat after about eleven seconds."""
    first, second = _wave_fields(width, height)
    turn = number / float(fps) * 23.0 / 256.0 % 1.0
    across = int(turn * first.shape[1])
    index = first + second[:, across : across + first.shape[1]] + np.uint8(int(turn * 256.0))
    small = cv2.applyColorMap(index, _wave_colours())
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


PATTERNS: dict[str, Callable[[int, int, int, Fraction], np.ndarray]] = {
    "bars": bars,
    "counter": counter,
    "waves": waves,
    "dance": dance,
}
"""By name: (number, width, height, fps) -> uint8 [height, width, 3]."""


class PatternSource(Source):
    """A test picture at a steady rate."""

    def __init__(self, name: str, options: Options) -> None:
        name = name or "bars"
        super().__init__(f"pattern:{name}")
        if name not in PATTERNS:
            raise TransportError(f"There is no test picture {name!r}.", f"Choose one of {', '.join(PATTERNS)}.")
        self._name = name
        self._width, self._height = options.width or 1280, options.height or 720
        self._fps = options.fps or DEFAULT_FPS
        self._ticker: Ticker | None = None
        self._seq = 0

    def open(self) -> None:
        """Start the clock."""
        if self._ticker is None:
            self._ticker = Ticker(self._fps)
            self._seq = 0

    def read(self, timeout_s: float) -> Frame | None:
        """The picture that is due."""
        if self._ticker is None:
            raise TransportError(f"{self.uri} is not open.")
        due = self._ticker.wait(timeout_s)
        if due is None:
            return None
        number, skipped = due
        self.skipped += skipped
        pixels = PATTERNS[self._name](number, self._width, self._height, self._fps)
        frame = Frame(pixels, PixelFormat.RGB, self._ticker.at(number), time.monotonic_ns(), self._seq)
        self._seq += 1
        return frame

    def close(self) -> None:
        """Stop the clock."""
        self._ticker = None

    @property
    def info(self) -> SourceInfo:
        """The picture's name, size and rate."""
        return SourceInfo(self.uri, f"Test picture {self._name}", self._width, self._height, float(self._fps))

    @property
    def connected(self) -> bool:
        """While open."""
        return self._ticker is not None


def source(name: str, options: Options) -> PatternSource:
    """A test picture by name; bars when the name is empty."""
    return PatternSource(name, options)


def sources(options: Options) -> list[SourceInfo]:
    """Every test picture."""
    return [PatternSource(name, options).info for name in PATTERNS]
