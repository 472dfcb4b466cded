"""The picture of `pattern:dance`: dancers with ribbons on a stage at dusk, drawn from sums of sines.

A pure function of time: the same number gives the same picture. The scene is drawn at a fixed height and then scaled,
so that the cost hardly depends on the requested size.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_CANVAS = 720
"""Height in pixels at which the scene is drawn before it is scaled; scaling down smooths the edges."""

_FLOOR = 0.86
"""Height of the stage's edge, as a share of the picture."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Dancer:
    """Where a dancer stands (share of the width from the middle), size, time shift and colours."""

    at: float
    size: float
    shift: float
    dress: tuple[int, int, int]
    limbs: tuple[int, int, int]
    ribbon: tuple[int, int, int]


_DANCERS = (
    _Dancer(-0.31, 0.72, 1.7, (46, 110, 170), (196, 150, 128), (80, 214, 230)),
    _Dancer(0.31, 0.72, 3.1, (70, 140, 96), (150, 104, 84), (190, 236, 110)),
    _Dancer(0.0, 1.0, 0.0, (208, 46, 74), (236, 190, 160), (255, 196, 72)),
)

_BEAT = 2 * math.pi * 108 / 60 / 4
"""Angular speed of one bar at 108 beats a minute."""


def _turn(origin: Point, length: float, angle: float) -> Point:
    """End of a limb that hangs straight down at angle 0 and points to the right at a quarter turn."""
    return origin[0] + length * math.sin(angle), origin[1] + length * math.cos(angle)


def _pose(dancer: _Dancer, seconds: float, width: float) -> dict[str, Point]:
    """Joints of a dancer in canvas pixels."""
    t = _BEAT * (seconds + dancer.shift)
    unit = _CANVAS * 0.15 * dancer.size
    sway, bounce = math.sin(t), abs(math.sin(2 * t))
    x = width * (0.5 + dancer.at) + unit * (0.55 * math.sin(t / 2) + 0.12 * sway)
    hip = (x, _CANVAS * (_FLOOR + 0.05 * (dancer.size - 0.72)) - unit * (1.72 + 0.16 * bounce))
    lean = 0.16 * math.sin(t + 0.6) + 0.07 * math.sin(3 * t)
    neck = _turn(hip, -unit * 1.15, -lean)
    joints = {"hip": hip, "neck": neck, "head": _turn(neck, -unit * 0.44, -lean * 1.6)}
    for side, sign in (("left", -1.0), ("right", 1.0)):
        phase = t if sign > 0 else t + 2.2
        shoulder = (neck[0] + sign * unit * 0.26, neck[1] + unit * 0.12)
        raised = sign * (1.75 + 0.95 * math.sin(phase) + 0.25 * math.sin(2 * phase + 1.0))
        elbow = _turn(shoulder, unit * 0.66, raised)
        hand = _turn(elbow, unit * 0.62, raised + sign * (0.55 + 0.6 * math.sin(phase + 1.1)))
        stance = sign * (0.22 + 0.2 * math.sin(t / 2 + sign)) + 0.12 * sway
        kick = max(0.0, math.sin(t + (0.0 if sign > 0 else math.pi))) ** 2
        thigh = stance + sign * 0.75 * kick
        side_hip = (hip[0] + sign * unit * 0.2, hip[1])
        knee = _turn(side_hip, unit * 0.92, thigh)
        foot = _turn(knee, unit * 0.9, thigh - sign * (0.25 + 0.9 * kick * (1 - kick) + 0.12 * bounce))
        joints |= {f"{side} shoulder": shoulder, f"{side} elbow": elbow, f"{side} hand": hand}
        joints |= {f"{side} hip": side_hip, f"{side} knee": knee, f"{side} foot": foot}
    return joints


def _shade(colour: tuple[int, int, int], by: float) -> tuple[int, int, int]:
    return tuple(min(255, int(c * by)) for c in colour)  # type: ignore[return-value]


def _limb(draw: ImageDraw.ImageDraw, points: list[Point], thick: list[float], colour: tuple[int, int, int]) -> None:
    """A line of tapered segments with round joints."""
    for (a, b), (p, q) in zip(itertools.pairwise(points), itertools.pairwise(thick), strict=True):
        length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1.0
        nx, ny = (b[1] - a[1]) / length, (a[0] - b[0]) / length
        draw.polygon(
            [
                (a[0] + nx * p, a[1] + ny * p),
                (b[0] + nx * q, b[1] + ny * q),
                (b[0] - nx * q, b[1] - ny * q),
                (a[0] - nx * p, a[1] - ny * p),
            ],
            colour,
        )
    for point, radius in zip(points, thick, strict=True):
        _disc(draw, point, radius, colour)


def _disc(draw: ImageDraw.ImageDraw, at: Point, radius: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), colour)


def _draw_ribbon(draw: ImageDraw.ImageDraw, dancer: _Dancer, seconds: float, width: float) -> None:
    """The path of the right hand during the last second, drifting away, as a tapering band."""
    unit = _CANVAS * 0.15 * dancer.size
    points: list[Point] = []
    for step in range(22):
        age = step / 22 * 1.1
        hand = _pose(dancer, seconds - age, width)["right hand"]
        wave = math.sin(9.0 * age - 5.0 * seconds)
        points.append((hand[0] + unit * age * (0.9 + 0.35 * wave), hand[1] + unit * age * (0.45 + 0.5 * wave)))
    for step in range(len(points) - 1, 0, -1):
        share = 1.0 - step / len(points)
        colour = _shade(dancer.ribbon, 0.45 + 0.55 * share)
        draw.line([points[step], points[step - 1]], colour, max(2, int(unit * 0.16 * share) + 2))
        _disc(draw, points[step], max(1.0, unit * 0.08 * share + 1), colour)


def _draw_dancer(draw: ImageDraw.ImageDraw, dancer: _Dancer, seconds: float, width: float) -> None:
    joints = _pose(dancer, seconds, width)
    unit = _CANVAS * 0.15 * dancer.size
    dark, light = _shade(dancer.limbs, 0.72), dancer.limbs
    for side, colour in (("left", dark), ("right", light)):
        leg = [joints[f"{side} {part}"] for part in ("hip", "knee", "foot")]
        _limb(draw, leg, [unit * 0.2, unit * 0.13, unit * 0.075], colour)
        foot = leg[-1]
        draw.ellipse(
            (foot[0] - unit * 0.12, foot[1] - unit * 0.06, foot[0] + unit * 0.2, foot[1] + unit * 0.1),
            _shade(dancer.dress, 0.6),
        )
    hip, neck, head = joints["hip"], joints["neck"], joints["head"]
    _limb(
        draw,
        [joints[f"left {p}"] for p in ("shoulder", "elbow", "hand")],
        [unit * 0.11, unit * 0.085, unit * 0.06],
        dark,
    )
    swing = unit * 0.28 * math.sin(_BEAT * (seconds + dancer.shift) - 0.7)
    hem = [
        (hip[0] - unit * 0.62 + swing, hip[1] + unit * 0.62),
        (hip[0] - unit * 0.2 + swing, hip[1] + unit * 0.74),
        (hip[0] + unit * 0.25 + swing, hip[1] + unit * 0.7),
        (hip[0] + unit * 0.66 + swing, hip[1] + unit * 0.56),
    ]
    waist_left, waist_right = (hip[0] - unit * 0.23, hip[1] - unit * 0.25), (hip[0] + unit * 0.23, hip[1] - unit * 0.25)
    draw.polygon([waist_left, waist_right, hem[3], hem[2], hem[1], hem[0]], _shade(dancer.dress, 0.86))
    draw.polygon([waist_right, hem[3], hem[2]], _shade(dancer.dress, 1.15))
    left, right = joints["left shoulder"], joints["right shoulder"]
    draw.polygon([left, right, waist_right, waist_left], dancer.dress)
    _disc(draw, left, unit * 0.12, dancer.dress)
    _disc(draw, right, unit * 0.12, dancer.dress)
    _limb(draw, [neck, head], [unit * 0.1, unit * 0.1], dark)
    hair = _shade(dancer.dress, 0.32)
    tail = (head[0] - swing * 1.1 - unit * 0.18, head[1] + unit * 0.36)
    _limb(draw, [(head[0] - unit * 0.06, head[1] - unit * 0.06), tail], [unit * 0.25, unit * 0.07], hair)
    _disc(draw, (head[0] + unit * 0.03, head[1] + unit * 0.02), unit * 0.22, light)
    draw.chord(
        (head[0] - unit * 0.26, head[1] - unit * 0.28, head[0] + unit * 0.27, head[1] + unit * 0.2), 180, 360, hair
    )
    _limb(
        draw,
        [joints[f"right {p}"] for p in ("shoulder", "elbow", "hand")],
        [unit * 0.11, unit * 0.085, unit * 0.06],
        light,
    )


@functools.lru_cache(2)
def _stage(width: int) -> Image.Image:
    """Sky, sun and floor without the dancers, RGB, canvas size."""
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
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


@functools.cache
def _beam() -> Image.Image:
    """A spotlight's cone down to the floor, grey, half as wide as high."""
    image = Image.new("L", (_CANVAS // 8, int(_CANVAS / 4 * _FLOOR)))
    draw = ImageDraw.Draw(image)
    x, bottom = image.width / 2, image.height
    draw.polygon([(x - 3, -4), (x + 3, -4), (x + bottom * 0.2, bottom), (x - bottom * 0.2, bottom)], 60)
    return image.filter(ImageFilter.GaussianBlur(4)).resize((_CANVAS // 2, int(_CANVAS * _FLOOR)))


def dance(number: int, width: int, height: int, fps: Fraction) -> np.ndarray:
    """Three dancers in front of a low sun, with ribbons and moving spotlights."""
    seconds = number / float(fps) + 10.0
    across = max(2, round(_CANVAS * width / height))
    image = _stage(across).copy()
    for phase, colour in ((0.0, (255, 170, 210)), (2.1, (130, 200, 255))):
        middle = int(across * (0.5 + 0.33 * math.sin(0.7 * seconds + phase)))
        image.paste(colour, (middle - _beam().width // 2, 0), _beam())
    draw = ImageDraw.Draw(image)
    for dancer in _DANCERS:
        x = _pose(dancer, seconds, across)["hip"][0]
        unit = _CANVAS * 0.15 * dancer.size
        y = _CANVAS * (_FLOOR + 0.05 * (dancer.size - 0.72)) + unit * 0.06
        draw.ellipse((x - unit * 0.9, y - unit * 0.1, x + unit * 0.9, y + unit * 0.14), (26, 14, 36))
    for dancer in _DANCERS:
        _draw_ribbon(draw, dancer, seconds, across)
        _draw_dancer(draw, dancer, seconds, across)
    return np.asarray(
        image.resize((width, height), Image.Resampling.BOX if height < _CANVAS else Image.Resampling.BILINEAR)
    )
