"""Procedural video clips, the only content that Ember is trained on.

A scene is a textured background under a moving camera, with shapes on it: overlapping blobs as in the "dead leaves"
model of natural images, figures with faces, letter-like strokes, light beams and sparks as on a stage. The picture is
then lit, graded, blurred and made noisy, as by a camera. Every clip is a pure function of its random generator.

Units: pixels and frames; colours 0..1, red green blue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch
from torch.nn import functional

STILL_SHARE = 0.25
"""Share of clips without motion, where flicker is most visible."""

MARGIN = 12.0
"""Distance in pixels up to which shapes are placed outside the picture, so that they can move into it."""


class Outline(Enum):
    """The outline of a shape."""

    DISC = "disc"
    BOX = "box"
    RING = "ring"
    BLOSSOM = "blossom"
    SHARD = "shard"


@dataclass(slots=True)
class Shape:
    """One filled shape that moves in a straight line and may rotate.

    Attributes:
        outline: kind of outline.
        centre, radius: position of the centre in the first frame, and size.
        colour: red, green, blue.
        velocity: pixels per frame.
        aspect: factor on the second axis.
        angle, spin: rotation in the first frame, and rotation per frame, in radians.
        soft: width of the edge.
        lobes: number, depth and phase of the lobes that modulate the radius.
        shade: strength of a shading across the shape.
        texture: share of the scene's texture.
        glow: whether the shape adds light instead of covering what is behind it.
    """

    outline: Outline
    centre: np.ndarray
    radius: float
    colour: np.ndarray
    velocity: np.ndarray
    aspect: float = 1.0
    angle: float = 0.0
    spin: float = 0.0
    soft: float = 0.8
    lobes: tuple[int, float, float] = (5, 0.3, 0.0)
    shade: float = 0.0
    texture: float = 0.0
    glow: bool = False


@dataclass(slots=True)
class Camera:
    """Pan (pixels), zoom (logarithm of the scale) and roll (radians) per frame, and the shake of a hand-held camera."""

    pan: np.ndarray
    zoom: float = 0.0
    roll: float = 0.0
    shake: np.ndarray = field(default_factory=lambda: np.zeros((1, 2)))

    def at(self, frame: float) -> tuple[np.ndarray, float, float]:
        """Offset in pixels, scale, and angle in radians at a frame."""
        return (
            self.pan * frame + self.shake[int(frame) % len(self.shake)],
            math.exp(self.zoom * frame),
            self.roll * frame,
        )


def fractal(rng: np.random.Generator, size: int, coarsest: int, roughness: float, channels: int = 1) -> np.ndarray:
    """Value noise of several octaves, [channels, size, size], mean 0.5, standard deviation about 0.2."""
    total = torch.zeros(1, channels, size, size)
    for octave in range(6):
        cells = coarsest * 2**octave
        if cells > size:
            break
        grid = torch.from_numpy(rng.standard_normal((1, channels, cells + 3, cells + 3)).astype(np.float32))
        layer = functional.interpolate(grid, (size, size), mode="bicubic", align_corners=True)
        total += layer * 2.0 ** (-roughness * octave)
    field_CHW = total[0]
    field_CHW = (field_CHW - field_CHW.mean()) / (field_CHW.std() + 1e-6)
    return (field_CHW * 0.22 + 0.5).clamp(0, 1).numpy()


def _colour(rng: np.random.Generator, mood: np.ndarray | None) -> np.ndarray:
    colour = rng.random(3) if mood is None else np.clip(mood + rng.normal(0, 0.25, 3), 0, 1)
    return colour.astype(np.float32)


def _background(rng: np.random.Generator, size: int, mood: np.ndarray | None, texture: np.ndarray) -> np.ndarray:
    """A gradient, clouds, stripes or checks, or a spot of light; [3, size, size]."""
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along, across = xx * math.cos(angle) + yy * math.sin(angle), yy * math.cos(angle) - xx * math.sin(angle)
    kind = rng.integers(5)
    if kind == 0:
        mix = (along - along.min()) / (np.ptp(along) + 1e-6)
    elif kind in (1, 2):
        mix = fractal(rng, size, int(rng.integers(1, 5)), rng.uniform(0.7, 1.5))[0]
    elif kind == 3:
        pitch = rng.uniform(8, 44)
        mix = (np.floor(along / pitch) + np.floor(across / pitch) * rng.integers(0, 2)) % 2
    else:
        mix = np.clip(np.hypot(xx - size * rng.random(), yy - size * rng.random()) / size, 0, 1)
    first, second = _colour(rng, mood), _colour(rng, mood)
    plain = first[:, None, None] + (second - first)[:, None, None] * mix
    return np.clip(plain + (texture - 0.5) * rng.uniform(0, 0.6), 0, 1).astype(np.float32)


def _leaves(rng: np.random.Generator, size: int, mood: np.ndarray | None, drift: np.ndarray) -> list[Shape]:
    count = int(rng.choice([3, 8, 20, 45]))
    shapes = []
    for _ in range(count):
        radius = 5 / (rng.random() + 0.04) ** rng.uniform(0.6, 1.1) * (3 if count < 15 else 1)
        shapes.append(
            Shape(
                outline=Outline(rng.choice([o.value for o in Outline])),
                centre=rng.uniform(-MARGIN, size + MARGIN, 2),
                radius=min(size * 0.45, radius),
                colour=_colour(rng, mood),
                velocity=drift + rng.normal(0, 1.6, 2),
                aspect=rng.uniform(0.35, 1),
                angle=rng.uniform(0, 2 * math.pi),
                spin=rng.normal(0, 0.03),
                soft=float(rng.choice([0.7, 0.7, 1.5, 6.0])),
                lobes=(int(rng.integers(3, 8)), rng.uniform(0.1, 0.45), rng.uniform(0, 2 * math.pi)),
                shade=rng.choice([0.0, 0.25]),
                texture=float(rng.choice([0.0, 0.3, 0.7])),
            )
        )
    return shapes


def _figure(rng: np.random.Generator, size: int, mood: np.ndarray | None) -> list[Shape]:
    """Shoulders, hair, face, eyes, brows, nose and mouth, moving together."""
    x, y, r = rng.uniform(0.25, 0.75) * size, rng.uniform(0.3, 0.55) * size, rng.uniform(0.1, 0.3) * size
    tone = np.array([0.85, 0.62, 0.48]) * rng.uniform(0.35, 1.15) + rng.normal(0, 0.04, 3)
    skin, dark = np.clip(tone, 0, 1).astype(np.float32), (rng.random(3) * 0.3).astype(np.float32)
    lips = (np.array([0.7, 0.25, 0.25]) * rng.uniform(0.6, 1.2)).astype(np.float32)
    white = np.array([0.92, 0.92, 0.9], np.float32)
    velocity, upright = rng.normal(0, 1.6, 2), math.pi / 2

    def part(dx: float, dy: float, radius: float, colour: np.ndarray, **more: object) -> Shape:
        outline = more.pop("outline", Outline.DISC)
        centre = np.array([x + dx * r, y + dy * r])
        return Shape(outline, centre, radius * r, colour, velocity, **more)  # type: ignore[arg-type]

    parts = [
        part(0, 2.3, 1.7, _colour(rng, mood), aspect=0.8, angle=upright, texture=0.4),
        part(0, -0.2, 1.15, _colour(rng, None) * 0.6, aspect=0.85, angle=upright, soft=1.2, texture=0.5),
        part(0, 0, 1.0, skin, aspect=0.74, angle=upright, shade=0.25, texture=0.2),
    ]
    for side in (-1, 1):
        parts += [
            part(side * 0.32, -0.15, 0.17, white, aspect=0.55),
            part(side * 0.32, -0.15, 0.08, dark),
            part(side * 0.32, -0.4, 0.2, dark, outline=Outline.BOX, aspect=0.18, angle=side * 0.2),
        ]
    nose, mouth = (
        part(0, 0.15, 0.1, skin * 0.85, aspect=0.8, angle=upright, soft=2.0),
        part(0, 0.47, 0.28, lips, aspect=0.3),
    )
    return [*parts, nose, mouth]


def _letters(rng: np.random.Generator, size: int) -> list[Shape]:
    x, y, height = rng.uniform(5, size * 0.5), rng.uniform(10, size - 20), rng.uniform(8, 30)
    colour, velocity, weight = _colour(rng, None), rng.normal(0, 1.6, 2), rng.uniform(0.24, 0.5)
    strokes = []
    for letter in range(int(rng.integers(2, 8))):
        for _ in range(int(rng.integers(2, 5))):
            place = rng.integers(0, 3, 2) * 0.5
            centre = np.array([x + letter * height * 1.1 + place[0] * height * 0.7, y + place[1] * height])
            angle = float(rng.choice([0, 1.57, 0.8, 2.3]))
            strokes.append(Shape(Outline.BOX, centre, height * 0.5, colour, velocity, aspect=weight, angle=angle))
    return strokes


def _stage(rng: np.random.Generator, size: int) -> list[Shape]:
    """Light beams from above, and sparks; they add light."""
    shapes = []
    for _ in range(int(rng.integers(1, 5))):
        centre = np.array([rng.uniform(0, size), rng.uniform(0, size * 0.5)])
        shapes.append(
            Shape(
                Outline.BOX,
                centre,
                size * 0.8,
                _colour(rng, None) * 0.6,
                rng.normal(0, 0.7, 2),
                glow=True,
                aspect=rng.uniform(0.03, 0.12),
                angle=rng.uniform(0.9, 2.2),
                spin=rng.normal(0, 0.02),
                soft=8.0,
            )
        )
    for _ in range(int(rng.integers(0, 30))):
        centre, speed = rng.uniform(0, size, 2), np.array([rng.normal(0, 1), rng.uniform(-3, 0.5)])
        shapes.append(
            Shape(Outline.DISC, centre, rng.uniform(0.8, 2.5), _colour(rng, None), speed, soft=1.5, glow=True)
        )
    return shapes


def _coverage(shape: Shape, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Share of each pixel that the shape covers; u, v are coordinates in the shape's own axes."""
    if shape.outline is Outline.BOX:
        distance = np.maximum(np.abs(u) - radius, (np.abs(v) - radius) * shape.aspect)
    else:
        distance = np.hypot(u, v)
        count, depth, phase = shape.lobes
        if shape.outline is Outline.RING:
            distance = np.abs(distance - radius * 0.75) - radius * 0.2
        elif shape.outline is Outline.DISC:
            distance = distance - radius
        else:
            wave = np.cos(count * np.arctan2(v, u) + phase)
            if shape.outline is Outline.SHARD:
                wave = 1 - 2 * np.abs(np.arccos(np.clip(wave, -1, 1)) / math.pi)
            distance = distance - radius * (1 - depth * 0.5 + depth * 0.5 * wave)
        distance = distance * min(1.0, shape.aspect + 0.3)
    return np.clip(0.5 - distance / shape.soft, 0, 1)


def paint(canvas_CHW: np.ndarray, shape: Shape, frame: float, camera: Camera, texture_CHW: np.ndarray) -> None:
    """Draw one shape into the canvas, in place."""
    height, width = canvas_CHW.shape[-2:]
    middle = np.array([width / 2, height / 2])
    offset, scale, roll = camera.at(frame)
    relative = (shape.centre + shape.velocity * frame - middle) * scale
    cos, sin = math.cos(roll), math.sin(roll)
    x = relative[0] * cos - relative[1] * sin + middle[0] + offset[0]
    y = relative[0] * sin + relative[1] * cos + middle[1] + offset[1]
    radius, angle = shape.radius * scale, shape.angle + shape.spin * frame + roll
    reach = radius * 1.45 + shape.soft + 1
    x0, x1 = max(0, int(x - reach)), min(width, int(x + reach) + 2)
    y0, y1 = max(0, int(y - reach)), min(height, int(y + reach) + 2)
    if x1 <= x0 or y1 <= y0:
        return
    yy, xx = np.ogrid[y0:y1, x0:x1]
    ca, sa = math.cos(angle), math.sin(angle)
    u = (xx - x) * ca + (yy - y) * sa
    v = ((yy - y) * ca - (xx - x) * sa) / shape.aspect
    alpha = _coverage(shape, u, v, radius)
    fill = shape.colour[:, None, None] * (1 - shape.shade * (u + v) / (radius + 1e-3))
    if shape.texture:
        rows = (np.arange(y0, y1) - round(y)) % texture_CHW.shape[1]
        columns = (np.arange(x0, x1) - round(x)) % texture_CHW.shape[2]
        fill = fill + (texture_CHW[:, rows[:, None], columns] - 0.5) * shape.texture
    patch = canvas_CHW[:, y0:y1, x0:x1]
    patch += alpha * (fill if shape.glow else fill - patch)


def _seen_background(background_CHW: torch.Tensor, size: int, frame: int, camera: Camera) -> np.ndarray:
    """The background as seen by the camera; it is mirrored at its edges."""
    offset, scale, roll = camera.at(frame)
    cos, sin = math.cos(-roll) / scale, math.sin(-roll) / scale
    shift = -2 * (np.array([[cos, -sin], [sin, cos]]) @ offset) / size
    theta = torch.tensor([[[cos, -sin, shift[0]], [sin, cos, shift[1]]]], dtype=torch.float32)
    grid = functional.affine_grid(theta, [1, 3, size, size], align_corners=False)
    seen = functional.grid_sample(background_CHW[None], grid, padding_mode="reflection", align_corners=False)
    return seen[0].numpy()


def _blur(picture_CHW: np.ndarray, sigma: float) -> np.ndarray:
    taps = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / (2 * sigma**2))
    taps = taps / taps.sum()
    x = functional.pad(torch.from_numpy(picture_CHW)[:, None], (3, 3, 3, 3), mode="reflect")
    x = functional.conv2d(functional.conv2d(x, taps.view(1, 1, 1, 7)), taps.view(1, 1, 7, 1))
    return x[:, 0].numpy()


def clip(rng: np.random.Generator, frames: int, size: int) -> np.ndarray:
    """Render one moving scene.

    Args:
        rng: every choice is drawn from it.
        frames: number of frames.
        size: width and height in pixels.

    Returns:
        uint8 array [frames, size, size, 3].
    """
    mood = rng.random(3) if rng.random() < 0.6 else None
    still = rng.random() < STILL_SHARE
    drift = rng.normal(0, 1.2, 2)
    camera = Camera(rng.normal(0, 1.2, 2), rng.normal(0, 0.006), rng.normal(0, 0.006))
    if rng.random() < 0.3:
        camera.shake = np.cumsum(rng.normal(0, 0.5, (frames, 2)), 0) * 0.7
    texture = fractal(rng, size, int(rng.integers(2, 8)), rng.uniform(0.5, 1.4), 3)
    background = torch.from_numpy(_background(rng, size, mood, texture))
    shapes = _leaves(rng, size, mood, drift)
    if rng.random() < 0.15:
        shapes += _stage(rng, size)
    if rng.random() < 0.4:
        shapes += _figure(rng, size, mood)
    if rng.random() < 0.3:
        shapes += _letters(rng, size)
    light = fractal(rng, size, 1, 1.0)[0] * rng.uniform(0, 1.2)
    light = 1 + light - light.mean()
    contrast, lift, saturation = rng.uniform(0.7, 1.4), rng.normal(0, 0.07), rng.uniform(0.3, 1.4)
    gamma, grain, blur = math.exp(rng.normal(0, 0.3)), abs(rng.normal(0, 0.015)), rng.choice([0.0, 0.0, 0.7, 1.4])

    tile = np.concatenate([texture, texture[:, ::-1]], 1)
    tile = np.concatenate([tile, tile[:, :, ::-1]], 2)
    pictures = []
    for frame in range(frames):
        moment = 0 if still else frame
        canvas = _seen_background(background, size, moment, camera)
        for shape in shapes:
            paint(canvas, shape, moment, camera, tile)
        canvas = np.clip(canvas, 0, 1) * light
        grey = canvas.mean(0, keepdims=True)
        canvas = grey + (canvas - grey) * saturation
        canvas = (np.clip((canvas - 0.5) * contrast + 0.5 + lift, 1e-4, 1) ** gamma).astype(np.float32)
        if blur:
            canvas = _blur(canvas, blur)
        canvas = canvas + rng.normal(0, grain, canvas.shape)
        pictures.append((np.clip(canvas, 0, 1) * 255).astype(np.uint8))
    return np.stack(pictures).transpose(0, 2, 3, 1)
