"""The picture of `pattern:dance`: dancers with ribbons on a stage at dusk, drawn from sums of sines.

A pure function of time: the same number gives the same picture. The scene is laid out at a fixed height and drawn at
the wanted one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

_CANVAS = 720
"""Height at which the scene is laid out."""

_FLOOR = 0.86
"""Height of the stage's edge, as a share of the picture."""

Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Dancer:
    """Where a dancer stands (share of the width from the middle), size, time shift and colours."""

    at: float
    size: float
    shift: float
    dress: Colour
    limbs: Colour
    ribbon: Colour


_DANCERS = (
    _Dancer(-0.31, 0.72, 1.7, (46, 110, 170), (196, 150, 128), (80, 214, 230)),
    _Dancer(0.31, 0.72, 3.1, (70, 140, 96), (150, 104, 84), (190, 236, 110)),
    _Dancer(0.0, 1.0, 0.0, (208, 46, 74), (236, 190, 160), (255, 196, 72)),
)

_LIGHTS: tuple[tuple[float, Colour], ...] = ((0.0, (255, 170, 210)), (2.1, (130, 200, 255)))
"""The spotlights: phase of their way over the stage, colour."""

_FINE = 4
"""Bits of a pixel's fractions with which shapes are placed."""

_BEAT = 2 * math.pi * 108 / 60 / 4
"""Angular speed of one bar at 108 beats a minute."""


class _Pen:
    """Draws shapes of the layout, with smooth edges.

    Args:
        pixels: uint8 [height, width, 3], drawn on.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self._scale = pixels.shape[0] / _CANVAS * (1 << _FINE)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        corners = np.rint(np.asarray(points) * self._scale).astype(np.int32)
        cv2.fillPoly(self._pixels, [corners], colour, cv2.LINE_AA, _FINE)

    def ellipse(self, at: Point, across: float, high: float, colour: Colour, begin: float = 0.0) -> None:
        """Fill an ellipse around a point, given its half axes; with `begin`, from that angle to 360 degrees."""
        axes = round(across * self._scale), round(high * self._scale)
        middle = round(at[0] * self._scale), round(at[1] * self._scale)
        cv2.ellipse(self._pixels, middle, axes, 0.0, begin, 360.0, colour, cv2.FILLED, cv2.LINE_AA, _FINE)

    def disc(self, at: Point, radius: float, colour: Colour) -> None:
        """Fill a circle around a point."""
        self.ellipse(at, radius, radius, colour)

    def line(self, begin: Point, end: Point, thick: float, colour: Colour) -> None:
        """A line with round ends."""
        first, last = [(round(x * self._scale), round(y * self._scale)) for x, y in (begin, end)]
        width = max(1, round(thick * self._scale / (1 << _FINE)))
        cv2.line(self._pixels, first, last, colour, width, cv2.LINE_AA, _FINE)

    def limb(self, points: Sequence[Point], thick: Sequence[float], colour: Colour) -> None:
        """A line of tapered segments with round joints."""
        for (a, b), (p, q) in zip(itertools.pairwise(points), itertools.pairwise(thick), strict=True):
            length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1.0
            nx, ny = (b[1] - a[1]) / length, (a[0] - b[0]) / length
            sides = [(a, p), (b, q), (b, -q), (a, -p)]
            self.polygon([(at[0] + nx * by, at[1] + ny * by) for at, by in sides], colour)
        for point, radius in zip(points, thick, strict=True):
            self.disc(point, radius, colour)


def _turn(origin: Point, length: float, angle: float) -> Point:
    """End of a limb that hangs straight down at angle 0 and points to the right at a quarter turn."""
    return origin[0] + length * math.sin(angle), origin[1] + length * math.cos(angle)


class _Body:
    """A dancer at a moment, in the layout's pixels.

    Args:
        seconds: the moment.
        width: of the layout.
    """

    def __init__(self, dancer: _Dancer, seconds: float, width: float) -> None:
        self.unit = unit = _CANVAS * 0.15 * dancer.size
        self._t = t = _BEAT * (seconds + dancer.shift)
        self._sway, self._bounce = math.sin(t), abs(math.sin(2 * t))
        x = width * (0.5 + dancer.at) + unit * (0.55 * math.sin(t / 2) + 0.12 * self._sway)
        self.floor = _CANVAS * (_FLOOR + 0.05 * (dancer.size - 0.72))
        self.hip = (x, self.floor - unit * (1.72 + 0.16 * self._bounce))
        self._lean = 0.16 * math.sin(t + 0.6) + 0.07 * math.sin(3 * t)
        self.neck = _turn(self.hip, -unit * 1.15, -self._lean)

    def head(self) -> Point:
        """Its middle."""
        return _turn(self.neck, -self.unit * 0.44, -self._lean * 1.6)

    def arm(self, sign: float) -> tuple[Point, Point, Point]:
        """Shoulder, elbow and hand; -1 is left, 1 right."""
        phase = self._t if sign > 0 else self._t + 2.2
        shoulder = (self.neck[0] + sign * self.unit * 0.26, self.neck[1] + self.unit * 0.12)
        raised = sign * (1.75 + 0.95 * math.sin(phase) + 0.25 * math.sin(2 * phase + 1.0))
        elbow = _turn(shoulder, self.unit * 0.66, raised)
        hand = _turn(elbow, self.unit * 0.62, raised + sign * (0.55 + 0.6 * math.sin(phase + 1.1)))
        return shoulder, elbow, hand

    def leg(self, sign: float) -> tuple[Point, Point, Point]:
        """Hip, knee and foot; -1 is left, 1 right."""
        stance = sign * (0.22 + 0.2 * math.sin(self._t / 2 + sign)) + 0.12 * self._sway
        kick = max(0.0, math.sin(self._t + (0.0 if sign > 0 else math.pi))) ** 2
        thigh = stance + sign * 0.75 * kick
        hip = (self.hip[0] + sign * self.unit * 0.2, self.hip[1])
        knee = _turn(hip, self.unit * 0.92, thigh)
        bent = sign * (0.25 + 0.9 * kick * (1 - kick) + 0.12 * self._bounce)
        return hip, knee, _turn(knee, self.unit * 0.9, thigh - bent)


def _shade(colour: Colour, by: float) -> Colour:
    return min(255, int(colour[0] * by)), min(255, int(colour[1] * by)), min(255, int(colour[2] * by))


def _draw_ribbon(pen: _Pen, dancer: _Dancer, seconds: float, width: float) -> None:
    """The path of the right hand during the last second, drifting away, as a tapering band."""
    unit = _CANVAS * 0.15 * dancer.size
    points: list[Point] = []
    for step in range(22):
        age = step / 22 * 1.1
        _, _, hand = _Body(dancer, seconds - age, width).arm(1.0)
        wave = math.sin(9.0 * age - 5.0 * seconds)
        points.append((hand[0] + unit * age * (0.9 + 0.35 * wave), hand[1] + unit * age * (0.45 + 0.5 * wave)))
    for step in range(len(points) - 1, 0, -1):
        share = 1.0 - step / len(points)
        pen.line(points[step], points[step - 1], unit * 0.16 * share + 2.0, _shade(dancer.ribbon, 0.45 + 0.55 * share))


def _draw_dancer(pen: _Pen, dancer: _Dancer, seconds: float, width: float) -> None:
    body = _Body(dancer, seconds, width)
    unit, hip, neck, head = body.unit, body.hip, body.neck, body.head()
    dark, light = _shade(dancer.limbs, 0.72), dancer.limbs
    for sign, colour in ((-1.0, dark), (1.0, light)):
        leg = body.leg(sign)
        pen.limb(leg, [unit * 0.2, unit * 0.13, unit * 0.075], colour)
        x, y = leg[-1]
        pen.ellipse((x + unit * 0.04, y + unit * 0.02), unit * 0.16, unit * 0.08, _shade(dancer.dress, 0.6))
    left, right = body.arm(-1.0), body.arm(1.0)
    pen.limb(left, [unit * 0.11, unit * 0.085, unit * 0.06], dark)
    swing = unit * 0.28 * math.sin(_BEAT * (seconds + dancer.shift) - 0.7)
    hem = [
        (hip[0] - unit * 0.62 + swing, hip[1] + unit * 0.62),
        (hip[0] - unit * 0.2 + swing, hip[1] + unit * 0.74),
        (hip[0] + unit * 0.25 + swing, hip[1] + unit * 0.7),
        (hip[0] + unit * 0.66 + swing, hip[1] + unit * 0.56),
    ]
    waist_left, waist_right = (hip[0] - unit * 0.23, hip[1] - unit * 0.25), (hip[0] + unit * 0.23, hip[1] - unit * 0.25)
    pen.polygon([waist_left, waist_right, hem[3], hem[2], hem[1], hem[0]], _shade(dancer.dress, 0.86))
    pen.polygon([waist_right, hem[3], hem[2]], _shade(dancer.dress, 1.15))
    pen.polygon([left[0], right[0], waist_right, waist_left], dancer.dress)
    pen.disc(left[0], unit * 0.12, dancer.dress)
    pen.disc(right[0], unit * 0.12, dancer.dress)
    pen.limb([neck, head], [unit * 0.1, unit * 0.1], dark)
    hair = _shade(dancer.dress, 0.32)
    tail = (head[0] - swing * 1.1 - unit * 0.18, head[1] + unit * 0.36)
    pen.limb([(head[0] - unit * 0.06, head[1] - unit * 0.06), tail], [unit * 0.25, unit * 0.07], hair)
    pen.disc((head[0] + unit * 0.03, head[1] + unit * 0.02), unit * 0.22, light)
    pen.ellipse((head[0] + unit * 0.005, head[1] - unit * 0.04), unit * 0.265, unit * 0.24, hair, begin=180.0)
    pen.limb(right, [unit * 0.11, unit * 0.085, unit * 0.06], light)


@functools.lru_cache(2)
def _stage(width: int, height: int) -> np.ndarray:
    """Sky, sun and floor without the dancers, uint8 [height, width, 3]."""
    size, width = (width, height), _across(width, height)
    rows = np.linspace(0.0, 1.0, _CANVAS, dtype=np.float32)
    stops = np.asarray([0.0, 0.45, 0.72, _FLOOR, _FLOOR + 0.001, 1.0], np.float32)
    colours = np.asarray(
        [(16, 14, 48), (66, 32, 104), (196, 84, 110), (250, 164, 108), (60, 32, 62), (18, 12, 34)], np.float32
    )
    sky = np.stack([np.interp(rows, stops, colours[:, channel]) for channel in range(3)], axis=-1)
    picture = np.repeat(sky[:, None, :], width, axis=1)
    y, x = np.mgrid[0:_CANVAS, 0:width].astype(np.float32)
    distance = np.hypot(x - width * 0.5, y - _CANVAS * 0.55) / _CANVAS
    above = (y < _CANVAS * _FLOOR).astype(np.float32)
    glow = np.exp(-((distance / 0.34) ** 2)) * above
    disc = np.clip((0.235 - distance) * 120, 0.0, 1.0) * above
    picture += glow[:, :, None] * np.asarray([70, 40, 6], np.float32)
    sun = np.asarray([255, 214, 132], np.float32) - (y / _CANVAS)[:, :, None] * np.asarray([0, 60, 20], np.float32)
    picture += disc[:, :, None] * (sun - picture)
    shine = np.exp(-(((x - width * 0.5) / (0.3 * _CANVAS)) ** 2)) * (1 - above)
    picture += shine[:, :, None] * np.asarray([90, 44, 26], np.float32)
    far = _CANVAS * (0.8 - 0.05 * np.sin(x[0] / _CANVAS * 4.0) - 0.035 * np.sin(x[0] / _CANVAS * 9.1 + 1.0))
    hills = ((y > far[None, :]) * above)[:, :, None]
    picture += hills * (np.asarray([58, 34, 84], np.float32) - picture) * 0.85
    made = np.clip(picture, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(made, size, interpolation=cv2.INTER_AREA if height < _CANVAS else cv2.INTER_LINEAR))


@functools.lru_cache(2)
def _beams(height: int) -> tuple[np.ndarray, ...]:
    """The light of every spotlight, a cone down to the floor: uint8 [rows, columns, 3]."""
    rows, columns = max(1, round(height * _FLOOR)), max(1, round(height / 2))
    cone: np.ndarray = np.zeros((rows, columns), np.uint8)
    middle, spread = columns / 2, rows * 0.2
    narrow = height * 0.016
    corners = [(middle - narrow, 0), (middle + narrow, 0), (middle + spread, rows), (middle - spread, rows)]
    cv2.fillPoly(cone, [np.rint(corners).astype(np.int32)], 42, cv2.LINE_AA)
    cone = cv2.GaussianBlur(cone, (0, 0), height * 0.022)
    return tuple(
        np.round(cone[:, :, None] / 255.0 * np.asarray(colour, np.float32)).astype(np.uint8) for _, colour in _LIGHTS
    )


def _across(width: int, height: int) -> int:
    """Width of the layout."""
    return max(2, round(_CANVAS * width / height))


def dance(number: int, width: int, height: int, fps: Fraction) -> np.ndarray:
    """Three dancers in front of a low sun, with ribbons and moving spotlights."""
    seconds = number / float(fps) + 10.0
    across = _across(width, height)
    pixels = _stage(width, height).copy()
    for (phase, _), light in zip(_LIGHTS, _beams(height), strict=True):
        left = int(width * (0.5 + 0.33 * math.sin(0.7 * seconds + phase))) - light.shape[1] // 2
        begin, end = max(0, left), min(width, left + light.shape[1])
        if begin < end:
            lit = pixels[: light.shape[0], begin:end]
            cv2.add(lit, light[:, begin - left : end - left], dst=lit)
    pen = _Pen(pixels)
    for dancer in _DANCERS:
        body = _Body(dancer, seconds, across)
        pen.ellipse((body.hip[0], body.floor + body.unit * 0.08), body.unit * 0.9, body.unit * 0.12, (26, 14, 36))
    for dancer in _DANCERS:
        _draw_ribbon(pen, dancer, seconds, across)
        _draw_dancer(pen, dancer, seconds, across)
    return pixels
