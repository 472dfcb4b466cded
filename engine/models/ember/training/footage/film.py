"""Procedural films in any format: what a camera at a show or in a street sees, the successor's only content.

A film is a picture behind (dead leaves, a texture with the spectrum of nature, a wall of light, or a scene of
`scenes`), seen by a camera that rests, pans, shakes or zooms; before it move bodies, and things as fast as 32 pixels a
frame; lamps and strobes light it. Fast things are blurred by the shutter. Every film is a pure function of its random
generator.

Units: pixels and frames; colours 0..1, red green blue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from engine.models.ember.training.footage.scenes import Camera, Outline, Shape, fractal, paint

FASTEST = 32.0
"""Speed of the fastest things, and of the fastest pans, in pixels per frame."""

STILL_SHARE, CALM_SHARE = 0.25, 0.4
"""Shares of films whose camera rests, and of those in which it moves slowly."""

SHUTTER = 0.5
"""Share of a frame's time during which the shutter is open."""


def film(rng: np.random.Generator, frames: int, height: int, width: int) -> np.ndarray:
    """Render one film.

    Args:
        rng: every choice is drawn from it.
        frames: number of frames.
        height, width: size in pixels.

    Returns:
        uint8 array [frames, height, width, 3].
    """
    camera = _camera(rng, frames)
    world = _background(rng, height, width)
    texture = fractal(rng, 128, int(rng.integers(2, 8)), rng.uniform(0.5, 1.3), 3)
    texture = np.concatenate([texture, texture[:, ::-1]], 1)
    texture = np.concatenate([texture, texture[:, :, ::-1]], 2)
    movers = _movers(rng, height, width)
    bodies = [Body.random(rng, height, width) for _ in range(int(rng.choice([0, 0, 1, 1, 2, 4])))]
    beams = _beams(rng, height, width) if rng.random() < 0.3 else []
    flash = _flash(rng, frames)
    grading = Grading.random(rng, height, width)
    pictures = []
    for frame in range(frames):
        speed = float(np.hypot(*camera.pan))
        instants = [frame + SHUTTER * n / 3 for n in range(3)] if speed > 5 and rng.random() < 0.8 else [float(frame)]
        seen = np.mean([_seen(world, height, width, instant, camera) for instant in instants], 0)
        for body in bodies:
            for shape in body.at(frame):
                paint(seen, shape, frame, camera, texture)
        for mover in movers:
            _smeared(seen, mover, frame, camera, texture)
        for beam in beams:
            paint(seen, beam, frame, camera, texture)
        pictures.append(grading.apply(rng, seen * flash[frame][:, None, None]))
    return np.stack(pictures).transpose(0, 2, 3, 1)


def _camera(rng: np.random.Generator, frames: int) -> Camera:
    kind, angle = rng.random(), rng.uniform(0, 2 * math.pi)
    if kind < STILL_SHARE:
        return Camera(np.zeros(2))
    speed = abs(rng.normal(0, 2.0)) if kind < STILL_SHARE + CALM_SHARE else rng.uniform(3, FASTEST)
    pan = speed * np.array([math.cos(angle), 0.4 * math.sin(angle)])
    camera = Camera(pan, rng.normal(0, 0.01), rng.normal(0, 0.008))
    if rng.random() < 0.3:
        camera.shake = np.cumsum(rng.normal(0, rng.choice([0.5, 3.0]), (frames, 2)), 0) * 0.7
    return camera


# --- behind ----------------------------------------------------------------------------------------------------


def natural_noise(rng: np.random.Generator, height: int, width: int, slope: float) -> np.ndarray:
    """Colours [3, height, width] with a spectrum of 1 / f^slope, about 0..1; in nature the slope is about 1."""
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    noise = np.fft.irfft2(spectrum / frequency**slope, (height, width))
    noise /= noise.std((1, 2), keepdims=True) + 1e-6
    shared = rng.uniform(0.5, 0.95)  # colours of nature vary together
    noise = shared * noise[:1] + math.sqrt(1 - shared**2) * noise * rng.uniform(0.3, 1.0)
    mean, spread = rng.uniform(0.25, 0.7, (3, 1, 1)), rng.uniform(0.08, 0.25)
    return np.clip(mean + spread * noise, 0, 1).astype(np.float32)


def _leaves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Overlapping textured shapes whose sizes follow a power law, as in natural pictures (dead leaves)."""
    canvas = natural_noise(rng, height, width, rng.uniform(0.9, 1.6))
    texture = natural_noise(rng, 128, 128, rng.uniform(0.6, 1.2))
    mood, variety = rng.random(3), rng.uniform(0.1, 0.45)
    smallest, largest = rng.uniform(1.5, 6), height * rng.uniform(0.15, 0.6)
    count = int(rng.choice([40, 150, 400]) * (smallest / 2) ** -0.5)
    sizes = np.sort((smallest**-2 + rng.random(count) * (largest**-2 - smallest**-2)) ** -0.5)[::-1]
    rest = Camera(np.zeros(2))
    outlines = list(Outline)
    for size in sizes:
        shape = Shape(
            outline=outlines[int(rng.integers(len(outlines)))],
            centre=rng.uniform((-size, -size), (width + size, height + size)),
            radius=float(size),
            colour=np.clip(mood + rng.normal(0, variety, 3), 0, 1).astype(np.float32),
            velocity=np.zeros(2),
            aspect=rng.uniform(0.3, 1),
            angle=rng.uniform(0, 2 * math.pi),
            soft=float(rng.choice([0.7, 0.9, 2.0])),
            lobes=(int(rng.integers(3, 8)), rng.uniform(0.1, 0.4), rng.uniform(0, 2 * math.pi)),
            shade=float(rng.choice([0.0, 0.3])),
            texture=float(rng.choice([0.0, 0.4, 1.0])),
        )
        paint(canvas, shape, 0, rest, texture)
    return canvas


def _wall(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A gradient, stripes or lamps on a dark wall, as on a stage."""
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along, across = xx * math.cos(angle) + yy * math.sin(angle), yy * math.cos(angle) - xx * math.sin(angle)
    first, second = rng.random((2, 3, 1, 1)) * rng.choice([0.3, 1.0])
    kind = rng.integers(3)
    if kind == 0:
        mix = (along - along.min()) / (np.ptp(along) + 1e-6)
    elif kind == 1:
        pitch = rng.uniform(6, 50)
        mix = np.clip(np.sin(along / pitch * 2) * rng.uniform(1, 6), -0.5, 0.5) + 0.5
        if rng.random() < 0.4:
            mix = np.abs(mix - (np.sin(across / pitch * 2) > 0))
    else:
        pitch = rng.uniform(14, 60)
        lamp = np.hypot((along / pitch) % 1 - 0.5, (across / pitch) % 1 - 0.5)
        mix = np.exp(-((lamp / rng.uniform(0.08, 0.3)) ** 2))
    return (first + (second - first) * mix).astype(np.float32)


def _background(rng: np.random.Generator, height: int, width: int) -> torch.Tensor:
    """A picture [1, 3, H, W] of about twice the film's size; it goes on mirrored beyond its borders."""
    size = (int(height * 1.5), int(width * 1.5))
    kind = rng.random()
    if kind < 0.5:
        picture = _leaves(rng, *size)
    elif kind < 0.75:
        picture = natural_noise(rng, *size, rng.uniform(0.7, 1.8))
    else:
        picture = _wall(rng, *size) + (natural_noise(rng, *size, 1.0) - 0.5) * rng.uniform(0, 0.3)
    if rng.random() < 0.25:  # out of focus
        scale = rng.uniform(0.1, 0.5)
        small = functional.interpolate(torch.from_numpy(picture)[None], scale_factor=scale, mode="area")
        picture = functional.interpolate(small, size, mode="bicubic")[0].numpy()
    return torch.from_numpy(picture.astype(np.float32))[None].clamp(0, 1)


def _seen(world: torch.Tensor, height: int, width: int, frame: float, camera: Camera) -> np.ndarray:
    """The part of the background that the camera sees, [3, height, width]."""
    offset, scale, roll = camera.at(frame)
    wide, high = world.shape[-1], world.shape[-2]
    cos, sin = math.cos(-roll) / scale, math.sin(-roll) / scale
    shift = -(np.array([[cos, -sin], [sin, cos]]) @ offset)
    theta = torch.tensor(
        [
            [
                [cos * width / wide, -sin * height / wide, 2 * shift[0] / wide],
                [sin * width / high, cos * height / high, 2 * shift[1] / high],
            ]
        ],
        dtype=torch.float32,
    )
    grid = functional.affine_grid(theta, [1, 3, height, width], align_corners=False)
    return functional.grid_sample(world, grid, padding_mode="reflection", align_corners=False)[0].numpy()


# --- before ----------------------------------------------------------------------------------------------------


def _movers(rng: np.random.Generator, height: int, width: int) -> list[Shape]:
    """Things that fly through the picture."""
    shapes = []
    outlines = list(Outline)
    for _ in range(int(rng.choice([0, 1, 2, 6]))):
        angle = rng.uniform(0, 2 * math.pi)
        speed = rng.uniform(0, FASTEST) if rng.random() < 0.6 else abs(rng.normal(0, 3))
        shapes.append(
            Shape(
                outline=outlines[int(rng.integers(len(outlines)))],
                centre=rng.uniform((0, 0), (width, height)),
                radius=rng.uniform(4, height * 0.25),
                colour=rng.random(3).astype(np.float32),
                velocity=speed * np.array([math.cos(angle), math.sin(angle)]),
                aspect=rng.uniform(0.4, 1),
                angle=angle,
                spin=rng.normal(0, 0.1),
                soft=float(rng.choice([0.8, 2.0])),
                lobes=(int(rng.integers(3, 8)), rng.uniform(0.1, 0.45), angle),
                texture=float(rng.choice([0.0, 0.5])),
            )
        )
    return shapes


def _smeared(canvas_CHW: np.ndarray, shape: Shape, frame: int, camera: Camera, texture_CHW: np.ndarray) -> None:
    """Draw a shape as long as the shutter is open."""
    if np.hypot(*shape.velocity) < 6:
        paint(canvas_CHW, shape, frame, camera, texture_CHW)
        return
    blurred = np.zeros_like(canvas_CHW)
    for number in range(4):
        instant = canvas_CHW.copy()
        paint(instant, shape, frame + SHUTTER * number / 4, camera, texture_CHW)
        blurred += instant / 4
    canvas_CHW[:] = blurred


@dataclass(slots=True)
class Body:
    """A dancer: head, trunk, and limbs that swing.

    Attributes:
        place, drift: where it stands, and how it moves in a frame.
        size: height of the trunk.
        colours: of skin, clothes, trousers and hair.
        swing, tempo, phases: how far, how fast and when the limbs swing.
    """

    place: np.ndarray
    drift: np.ndarray
    size: float
    colours: list[np.ndarray]
    swing: float
    tempo: float
    phases: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, height: int, width: int) -> Body:
        """A body somewhere in the picture."""
        skin = np.clip(np.array([0.85, 0.62, 0.48]) * rng.uniform(0.3, 1.15) + rng.normal(0, 0.04, 3), 0, 1)
        place = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.45, 0.9) * height])
        drift = np.array([rng.normal(0, 3), rng.normal(0, 0.7)])
        clothes = [rng.random(3), rng.random(3) * 0.6, rng.random(3) * 0.4]
        colours = [colour.astype(np.float32) for colour in (skin, *clothes)]
        size = rng.uniform(0.12, 0.6) * height
        return cls(
            place, drift, size, colours, rng.uniform(0.1, 1.2), rng.uniform(0.05, 0.9), rng.uniform(0, 2 * math.pi, 4)
        )

    def at(self, frame: int) -> list[Shape]:
        """Its parts at a frame, from the back to the front."""
        size, (skin, clothes, trousers, hair) = self.size, self.colours
        bounce = np.array([0, -0.06 * size * abs(math.sin(self.tempo * frame))])
        middle = self.place + self.drift * frame + bounce
        shapes = []

        def limb(start: np.ndarray, angle: float, length: float, thick: float, colour: np.ndarray) -> np.ndarray:
            end = start + length * np.array([math.sin(angle), math.cos(angle)])
            shapes.append(
                Shape(
                    Outline.DISC,
                    (start + end) / 2,
                    length * 0.62,
                    colour,
                    np.zeros(2),
                    aspect=thick * size / (length * 0.62),
                    angle=math.pi / 2 - angle,
                    shade=0.2,
                    texture=0.2,
                )
            )
            return end

        swings = self.swing * np.sin(self.tempo * frame + self.phases)
        for number, side in enumerate((-1, 1)):
            knee = limb(middle + size * np.array([side * 0.16, 0.4]), swings[number] * 0.7, 0.5 * size, 0.14, trousers)
            limb(knee, swings[number] * 0.3, 0.5 * size, 0.1, trousers)
        limb(middle - size * np.array([0, 0.5]), 0.0, size, 0.34, clothes)
        for number, side in enumerate((-1, 1)):
            angle = side * (0.4 + 1.3 * abs(swings[number + 2]))
            elbow = limb(middle + size * np.array([side * 0.3, -0.35]), angle, 0.45 * size, 0.1, clothes)
            limb(elbow, angle * 1.5, 0.4 * size, 0.08, skin)
        head = middle - size * np.array([0, 0.78])

        def disc(dx: float, dy: float, radius: float, colour: np.ndarray, aspect: float = 1.0) -> Shape:
            place = head + np.array([dx, dy]) * size
            return Shape(Outline.DISC, place, radius * size, colour, np.zeros(2), aspect=aspect, soft=1.0, shade=0.15)

        dark = hair * 0.5
        shapes += [disc(0, -0.05, 0.27, hair), disc(0, 0, 0.23, skin), disc(0, 0.11, 0.07, skin * 0.6, 0.4)]
        return [*shapes, disc(-0.08, -0.04, 0.035, dark), disc(0.08, -0.04, 0.035, dark)]


# --- light -----------------------------------------------------------------------------------------------------


def _beams(rng: np.random.Generator, height: int, width: int) -> list[Shape]:
    """Beams of lamps from above; they add light."""
    beams = []
    for _ in range(int(rng.integers(1, 5))):
        beams.append(
            Shape(
                Outline.BOX,
                rng.uniform((0, 0), (width, height * 0.5)),
                height * 0.9,
                (rng.random(3) * 0.6).astype(np.float32),
                np.array([rng.normal(0, 3), 0.0]),
                glow=True,
                aspect=rng.uniform(0.03, 0.15),
                angle=rng.uniform(0.9, 2.2),
                spin=rng.normal(0, 0.05),
                soft=8.0,
            )
        )
    return beams


def _flash(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Light of every frame [frames, 3]: steady, a strobe, or a colour that changes."""
    light = np.ones((frames, 3), np.float32)
    kind = rng.random()
    if kind < 0.1:
        light *= np.where(np.arange(frames) % int(rng.integers(2, 7)) == 0, rng.uniform(1.2, 2.0), 0.25)[:, None]
    elif kind < 0.2:
        phases = rng.uniform(0, 2 * math.pi, 3)
        light = (0.7 + 0.5 * np.sin(np.arange(frames)[:, None] * rng.uniform(0.1, 1.5) + phases)).astype(np.float32)
    return light


@dataclass(slots=True)
class Grading:
    """What a camera makes of light: uneven exposure, saturation, contrast, gamma, softness and grain."""

    light: np.ndarray
    contrast: float
    lift: float
    saturation: float
    gamma: float
    grain: float
    soft: float

    @classmethod
    def random(cls, rng: np.random.Generator, height: int, width: int) -> Grading:
        """A grading for films of this size."""
        light = fractal(rng, max(height, width), 1, 1.0)[0, :height, :width] * rng.uniform(0, 1.2)
        return cls(
            1 + light - light.mean(),
            rng.uniform(0.8, 1.7),
            rng.normal(0, 0.06),
            rng.uniform(0.2, 1.4),
            math.exp(rng.normal(0, 0.3)),
            abs(rng.normal(0, 0.012)),
            float(rng.choice([0.0, 0.0, 0.3])),
        )

    def apply(self, rng: np.random.Generator, picture_CHW: np.ndarray) -> np.ndarray:
        """A frame [3, H, W] as uint8."""
        picture = np.clip(picture_CHW, 0, 1) * self.light
        grey = picture.mean(0, keepdims=True)
        picture = grey + (picture - grey) * self.saturation
        picture = np.clip((picture - 0.5) * self.contrast + 0.5 + self.lift, 1e-4, 1) ** self.gamma
        if self.soft:
            wide = np.pad(picture, ((0, 0), (1, 1), (1, 1)), mode="edge")
            near = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
            picture = picture * (1 - self.soft) + near * (self.soft / 4)
        picture = picture + rng.normal(0, self.grain, picture.shape)
        return (np.clip(picture, 0, 1) * 255).astype(np.uint8)
