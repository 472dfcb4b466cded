"""`tidecast bench reprojection`: whether a picture that is moved on is truer than one that is only held."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from PIL import Image

from bridge.cli.size import parse_size
from bridge.control.values import Snapshot
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.stages.base import Context
from bridge.pipeline.stages.reproject import Reproject
from bridge.pipeline.stages.reproject_controls import REPROJECTION, ReprojectControls
from bridge.video.synthetic.dance import dance
from engine.bench.report import say
from engine.frame import Frame

FPS = 30
AGES = (1, 2, 4, 8)
"""How old the restyled picture is, in frames of the input."""

WORDS = ("neon", "vapor", "fire", "ink", "comic")


def reprojection(
    size: Annotated[str, typer.Option(help="Size of the model's picture.")] = "512x288",
    frames: Annotated[int, typer.Option(help="Frames of the test picture (dance).")] = 96,
    strength: Annotated[float, typer.Option(help="The control of this name.")] = 0.65,
    picture: Annotated[Path | None, typer.Option(help="Write a film strip to this file.")] = None,
) -> None:
    """Ember restyles the test picture; each restyled picture is shown some frames late, held and moved on.

    The figure is the peak signal-to-noise ratio against the restyled picture of the moment at which it is shown.
    """
    width, height = parse_size(size)
    film = [np.ascontiguousarray(dance(n, width, height, Fraction(FPS))[..., :3]) for n in range(frames)]
    rows: list[dict[str, Any]] = []
    strips: list[np.ndarray] = []
    for words in WORDS:
        truth = restyled(film, words, strength, width, height)
        for age in AGES:
            made, states = shown(film, truth, age)
            late = range(2 * AGES[-1], len(truth) - age)
            held = float(np.mean([cv2.PSNR(truth[n], truth[n + age]) for n in late]))
            moved = float(np.mean([cv2.PSNR(made[n], truth[n + age]) for n in late]))
            doing = max(set(states), key=states.count)
            rows.append({"words": words, "age": age, "held_db": held, "moved_db": moved, "state": doing})
            if picture is not None and age == AGES[-1] and words == WORDS[0]:
                at = len(truth) // 2
                strips.append(np.concatenate([film[at + age], truth[at], made[at], truth[at + age]], axis=1))
    if picture is not None:
        Image.fromarray(np.concatenate(strips)).save(picture, quality=88)
    say(
        f"Reprojection, {size}, {FPS} frames a second, strength {strength:g}",
        [(r["words"], str(r["age"]), f"{r['held_db']:.1f}", f"{r['moved_db']:.1f}", r["state"]) for r in rows],
        rows,
        ("look", "frames late", "held, dB", "moved on, dB", "state"),
    )


def restyled(film: Sequence[np.ndarray], words: str, strength: float, width: int, height: int) -> list[np.ndarray]:
    """Every frame of a film, restyled by Ember."""
    from engine.config import Config
    from engine.controls import Controls
    from engine.session import Session

    controls = Controls(prompt_1=words, strength=strength, steps=1)
    made: list[Frame] = []
    with Session.open(Config(model="ember", width=width, height=height, device="cpu")) as session:
        for n, pixels in enumerate(film):
            session.feed(Frame(pixels, pts_ns=time_of(n), captured_ns=time_of(n), seq=n))
            if session.ready:
                made += session.step(controls)
        made += session.flush()
    return [np.ascontiguousarray(frame.pixels[..., :3]) for frame in made]


def shown(film: Sequence[np.ndarray], truth: Sequence[np.ndarray], age: int) -> tuple[list[np.ndarray], list[str]]:
    """Each restyled picture as it is shown `age` frames late, at the second tick after it came."""
    stage, history = Reproject(), FrameHistory()
    controls = Snapshot([ReprojectControls(reproject=1.0)])
    made, states = [], []
    for n, pixels in enumerate(film):
        history.add(Frame(pixels, captured_ns=time_of(n), seq=n))
        if n < age or n - age >= len(truth):
            continue
        old = Frame(truth[n - age], captured_ns=time_of(n - age), seq=n - age)
        context = Context(time_of(n), history, controls, True, (pixels.shape[1], pixels.shape[0]))
        for _ in range(2):
            (frame,) = stage.process(old, context)
        made.append(frame.pixels)
        states.append(str(stage.readings()[REPROJECTION.name]))
    return made, states


def time_of(number: int) -> int:
    """The time of a frame in ns; none has the time 0."""
    return (number + 1) * 1_000_000_000 // FPS
