"""`tidecast bench mask`: how true, how calm and how dear the person mask and the keys are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from PIL import Image

from bridge.bench.photographs import Photograph, film, photographs
from bridge.bench.reprojection import FPS, restyled, time_of
from bridge.cli.size import parse_size
from bridge.control.values import Snapshot
from bridge.pipeline.canvas.scaling import reduced
from bridge.pipeline.canvas.size import parse
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.mask.controls import MaskControls
from bridge.pipeline.mask.person import squeezed
from bridge.pipeline.mask.region import Region, region_of
from bridge.pipeline.mask.smoothing import Smoother
from bridge.pipeline.mask.stage import Mask
from bridge.pipeline.mask.timeline import PersonMask
from bridge.pipeline.stages.base import Context
from engine.bench.report import say
from engine.errors import ConfigError
from engine.frame import Frame

Masking = Callable[[np.ndarray], np.ndarray]
"""From a picture of `MASK_SIZE` to its mask."""

CASES: dict[str, dict[str, Any]] = {
    "person": {"mask_source": "person"},
    "person, not refined": {"mask_source": "person", "mask_refine": False},
    "person, feather 2 %": {"mask_source": "person", "mask_feather": 2.0},
    "luma": {"mask_source": "luma"},
    "chroma, no spill": {"mask_source": "chroma", "mask_spill": 0.0},
    "chroma": {"mask_source": "chroma"},
    "person and chroma": {"mask_source": "person-chroma"},
}
"""Settings whose time is measured."""


def mask(
    size: Annotated[str, typer.Option(help="Size of the model's picture.")] = "512x288",
    output_size: Annotated[str, typer.Option(help="Size of the output.")] = "1920x1080",
    frames: Annotated[int, typer.Option(min=20, help="Frames of the film.")] = 60,
    picture: Annotated[Path | None, typer.Option(help="Only write pictures of the mask's uses to this file.")] = None,
) -> None:
    """Masks of photographs and of a film whose true masks are known, and the time of each part on one CPU thread."""
    import torch

    from engine.models.selfie.masker import Masker

    torch.set_num_threads(1)
    model, canvas = parse_size(size), parse(output_size)
    if isinstance(canvas, str):
        raise ConfigError(f"The output cannot be {canvas} here.", "Write width x height, such as 1920x1080.")
    masker = Masker()
    if picture is not None:
        Image.fromarray(uses(model, masker.mask)).save(picture, quality=88)
        return
    rows: list[dict[str, Any]] = [still(photograph, masker.mask) for photograph in photographs()]
    for late in (0, 1, 3):
        for moved in (True, False) if late else (True,):
            rows.append(moving(model, frames, late, moved, masker.mask))
    rows += [flicker(model, amount, masker.mask) for amount in (0.0, 0.7, 0.9)]
    small = squeezed(Frame(photographs()[0].pixels), Region())
    network_ms = milliseconds(lambda: masker.mask(small))
    rows.append({"what": "network, 256x144", "ms": network_ms})
    rows += [cost(name, values, model, canvas, masker.mask) for name, values in CASES.items()]
    columns = ("what", "iou", "edge_px", "flicker", "ms")
    headings = ("", "IoU", "edge error, px", "flicker, 1/1000", "ms")
    lines = [[_text(row.get(name)) for name in columns] for row in rows]
    say(f"mask, {size} to {output_size}", lines, rows, headings)


def uses(model: tuple[int, int], masking: Masking) -> np.ndarray:
    """The test picture (dance), its matte, and `fire` inside, outside, and inside before one colour, in a row."""
    from bridge.video.synthetic.dance import dance

    pictures = [np.ascontiguousarray(dance(n, *model, Fraction(FPS))[..., :3]) for n in range(12)]
    wet = restyled(pictures, "fire", 0.8, *model)[7]
    values: dict[str, Any] = {"mask_source": "luma", "mask_luma_low": 0.35, "mask_key_softness": 0.05}
    cases: tuple[dict[str, Any], ...] = (
        {"mask_view": True},
        {},
        {"mask_use": "outside"},
        {"mask_background": "color", "mask_background_color": "#102840"},
    )
    row = [pictures[7]]
    for case in cases:
        play = Play(*model, masking, **values | case)
        play.take(pictures[7])
        row.append(play.frame(wet).pixels)
    return np.concatenate(row, axis=1)


def still(photograph: Photograph, masking: Masking) -> dict[str, Any]:
    """The mask of a photograph, as the stage shapes it at the photograph's own size."""
    height, width = photograph.person.shape
    matte = Play(width, height, masking, mask_source="person").show(photograph.pixels)
    return {
        "what": f"photograph: {photograph.name}",
        "iou": iou(matte, photograph.person, photograph.counted),
        "edge_px": edge_error(matte, photograph.person, photograph.counted),
    }


def moving(model: tuple[int, int], frames: int, late: int, moved: bool, masking: Masking) -> dict[str, Any]:
    """The mattes of the film, with masks that come some frames late, moved on by the input's motion or not."""
    play = Play(*model, masking, late=late, moved=moved, mask_source="person")
    found: list[tuple[float, float]] = []
    for n, (pixels, truth) in enumerate(film(*model, frames)):
        matte = play.show(pixels)
        if n > 2 * late + 3:
            everywhere = np.ones(truth.shape, bool)
            found.append((iou(matte, truth, everywhere), edge_error(matte, truth, everywhere)))
    name = "film" if not late else f"film, mask {late} late, " + ("moved on" if moved else "held")
    return {
        "what": name,
        "iou": statistics.fmean(value for value, _ in found),
        "edge_px": statistics.fmean(value for _, value in found),
    }


def flicker(model: tuple[int, int], amount: float, masking: Masking) -> dict[str, Any]:
    """Mean change of the matte from frame to frame while nothing moves but the noise of a camera (sigma 6 of 255)."""
    pixels = next(film(*model, 1))[0]
    noise = np.random.default_rng(0)
    play = Play(*model, masking, mask_source="person", mask_smooth=amount)
    mattes = []
    for _ in range(24):
        noisy = pixels + noise.normal(0.0, 6.0, pixels.shape)
        mattes.append(play.show(np.clip(noisy, 0, 255).astype(np.uint8)).astype(np.float32))
    changes = [float(np.mean(np.abs(one - other))) / 255.0 for one, other in pairwise(mattes[8:])]
    return {"what": f"a still picture, smoothing {amount:g}", "flicker": 1e3 * statistics.fmean(changes)}


def cost(
    name: str, values: dict[str, Any], model: tuple[int, int], canvas: tuple[int, int], masking: Masking
) -> dict[str, Any]:
    """The stage's time for a new input frame, on the canvas."""
    pixels = [next(film(*canvas, 1))[0], next(film(*canvas, 1))[0]]
    play = Play(*canvas, masking, model=model, **values)
    times = []
    for n in range(14):
        play.take(pixels[n % 2])
        began = time.perf_counter()
        play.matte(pixels[n % 2])
        times.append((time.perf_counter() - began) * 1e3)
    return {"what": f"stage: {name}", "ms": statistics.median(times[4:])}


class Play:
    """Frames through the stage, with their masks.

    Args:
        width, height: of the pictures.
        masking: makes the masks.
        late: how many frames the masks come late.
        moved: whether the stage may move late masks on; otherwise they are given as if they were of this moment.
        model: the size at which the matte is made; that of the pictures by default.
        values: of the controls.
    """

    def __init__(
        self,
        width: int,
        height: int,
        masking: Masking,
        *,
        late: int = 0,
        moved: bool = True,
        model: tuple[int, int] | None = None,
        **values: Any,
    ) -> None:
        self._size = width, height
        self._model = model or self._size
        self._masking = masking
        self._late, self._moved = late, moved
        self._stage, self._smoother, self._history = Mask(), Smoother(), FrameHistory()
        self._controls = Snapshot([MaskControls(**{"mask_use": "inside", **values})])
        self._masks: list[PersonMask] = []
        self._number = 0

    def take(self, pixels: np.ndarray) -> None:
        """The next frame of the input, and the mask that comes with it."""
        ns = time_of(self._number)
        small = Frame(reduced(pixels, *self._model), captured_ns=ns, seq=self._number)
        self._history.add(Frame(pixels, captured_ns=ns, seq=self._number), small)
        region = region_of(self._controls.of(MaskControls))
        self._masks.append(PersonMask(ns, self._masking(squeezed(small, region)), region))
        self._number += 1
        if len(self._masks) > self._late:
            old = self._masks[-1 - self._late]
            mask = self._smoother.next(old, self._controls.of(MaskControls).mask_smooth)
            if mask is not None:
                at = mask if self._moved else PersonMask(ns, mask.values, mask.region)
                self._history.masks.add(at)

    def frame(self, wet: np.ndarray) -> Frame:
        """What the stage makes of a restyled picture of the frame that came last."""
        ns = time_of(self._number - 1)
        context = Context(ns, self._history, self._controls, True, self._size)
        (frame,) = self._stage.process(Frame(wet, captured_ns=ns), context)
        return frame

    def matte(self, pixels: np.ndarray) -> np.ndarray:
        """The matte of the frame that came last, which has these pixels: uint8 [height, width]."""
        matte = self.frame(pixels).matte
        return np.zeros(pixels.shape[:2], np.uint8) if matte is None else matte  # no mask yet

    def show(self, pixels: np.ndarray) -> np.ndarray:
        """Take a frame, and give its matte."""
        self.take(pixels)
        return self.matte(pixels)


def iou(matte: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> float:
    """Intersection over union of what is more inside than outside."""
    found, true = (matte > 127) & counted, (truth > 127) & counted
    return float(np.sum(found & true)) / max(1.0, float(np.sum(found | true)))


def edge_error(matte: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> float:
    """Median distance of the matte's edge from the true one, in pixels."""
    edge, true = _edge(matte), _edge(truth)
    distance = cv2.distanceTransform(np.where(true, 0, 255).astype(np.uint8), cv2.DIST_L2, 5)
    there = edge & counted
    return float(np.median(distance[there])) if there.any() else float("nan")


def _edge(mask: np.ndarray) -> np.ndarray:
    inside = (mask > 127).astype(np.uint8)
    edge = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    edge[[0, -1], :] = edge[:, [0, -1]] = False
    return np.asarray(edge)


def milliseconds(work: Callable[[], object], rounds: int = 40) -> float:
    """Median time of some work in ms; the first rounds are not counted."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times[8:])


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"
