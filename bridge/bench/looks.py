"""`tidecast bench looks`: how much each tenth of the strength control changes the picture, and how strong blends are.

The figures give a row of the model table its `strength_curve` and its `blend_gain`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from bridge.cli.size import parse_size
from bridge.video.synthetic.dance import dance
from engine.bench.report import say
from engine.config import Config
from engine.controls import PROMPT_SLOTS, Controls
from engine.frame import Frame
from engine.opening import opened
from engine.session import Session

Pixels = npt.NDArray[np.floating[Any]]
Film = Sequence[npt.NDArray[np.uint8]]

ONE = Controls(strength=1.0, steps=1, prompt_seconds=0.0)
"""One step, and a new prompt at once."""

FPS = 30
FINE = 20
"""Parts of the strength control's range that are measured."""

FRAMES = 13
JUDGED = 4
"""Frames at the end of a clip that are compared; before them the network's memory fills."""

EVEN_LOOKS = ("neon", "ink", "vapor", "fire", "oil", "comic", "gold", "mono", "watercolor", "pixel", "chrome", "sunset")
BLENDS = 12
"""Random blends of four looks that are measured."""

FULL = 0.99
"""The strength at which a picture has this share of its greatest distance from the input is the curve's last: beyond
it, more only takes structure away."""


def looks(
    model: Annotated[str, typer.Option(help="Model to measure.")] = "ember",
    size: Annotated[str, typer.Option(help="Size of the picture.")] = "256x144",
    plain: Annotated[bool, typer.Option(help="Without the model's own curve and gain, to make new ones.")] = False,
) -> None:
    """Measure the visible change of every twentieth of the strength control, and of blends of four looks.

    Distance is the mean absolute difference from the input, 0 to 1; change is that from the setting before.
    """
    width, height = parse_size(size)
    film = [np.ascontiguousarray(dance(n, width, height, Fraction(FPS))[..., :3]) for n in range(FRAMES)]
    wanted = np.stack(film[-JUDGED:]).astype(np.float32) / 255
    config = Config(model=model, width=width, height=height, device="cpu")
    with opened_session(config, plain) as session:
        curve = session.spec.strength_of
        rows, evened = tenths(session, film, wanted)
        ratio = blends(session, film, wanted)
    say(
        f"Looks of {model}, {size}, one step: each tenth of the strength control, over {len(EVEN_LOOKS)} looks",
        [(f"{n / 10:.1f}", f"{curve(n / 10):.3f}", f"{d:.3f}", f"{c:.3f}") for n, (d, c) in enumerate(rows)],
        [{"control": n / 10, "strength": curve(n / 10), "distance": d, "change": c} for n, (d, c) in enumerate(rows)],
        ("control", "strength", "distance from the input", "change from the setting before"),
    )
    print(f"an even curve: ({', '.join(f'{curve(at):.3f}' for at in evened)})")
    print(f"the middle of four looks changes {ratio:.2f} times what they change, over {BLENDS} blends")


def opened_session(config: Config, plain: bool) -> Session:
    """A session with the row's curve and gain, or without."""
    model = opened(config, say=lambda _: None, defer_prompts=False, files=None)
    if plain:
        model.prompts.gain = 1.0
        model = replace(model, spec=replace(model.spec, strength_curve=()))
    return Session(model, config)


def tenths(session: Session, film: Film, wanted: Pixels) -> tuple[list[tuple[float, float]], list[float]]:
    """(distance, change) of every tenth of the control; and the settings that would share the change evenly."""
    distance, change = np.zeros(FINE + 1), np.zeros(FINE + 1)
    for number, look in enumerate(EVEN_LOOKS, 1):
        print(f"\rlook {number} of {len(EVEN_LOOKS)}", end="", file=sys.stderr, flush=True)
        made = [picture(session, film, replace(ONE, prompt_1=look, strength=n / FINE)) for n in range(FINE + 1)]
        distance += [far(one, wanted) / len(EVEN_LOOKS) for one in made]
        change[1:] += [far(b, a) / len(EVEN_LOOKS) for a, b in pairwise(made)]
    total = np.cumsum(change)
    last = int(np.argmax(distance >= FULL * distance.max()))
    settings = np.arange(FINE + 1) / FINE
    even = [float(np.interp(total[last] * n / 10, total, settings)) for n in range(11)]
    per = FINE // 10
    return [
        (float(distance[n]), float(change[max(n - per + 1, 0) : n + 1].sum())) for n in range(0, FINE + 1, per)
    ], even


def blends(session: Session, film: Film, wanted: Pixels) -> float:
    """How far four equally blended looks are from the input, relative to the mean of the four."""
    chance, ratios = random.Random(3), []
    for _ in range(BLENDS):
        four = chance.sample(EVEN_LOOKS, PROMPT_SLOTS)
        alone = [far(picture(session, film, replace(ONE, prompt_1=look)), wanted) for look in four]
        slots: dict[str, Any] = {f"prompt_{n}": look for n, look in enumerate(four, 1)}
        slots |= {f"weight_{n}": 1.0 for n in range(1, PROMPT_SLOTS + 1)}
        ratios.append(far(picture(session, film, replace(ONE, **slots)), wanted) / float(np.mean(alone)))
    print(file=sys.stderr)
    return float(np.mean(ratios))


def picture(session: Session, film: Film, controls: Controls) -> Pixels:
    """The last frames of a film, restyled from the start of a stream: [T, H, W, 3] in 0..1."""
    made: list[Frame] = []
    for n, pixels in enumerate(film):
        session.feed(Frame(pixels, pts_ns=n * 1_000_000_000 // FPS, seq=n))
        if session.ready:
            made += session.step(controls)
    made += session.flush()
    return np.stack([frame.pixels[..., :3] for frame in made[-JUDGED:]]).astype(np.float32) / 255


def far(one: Pixels, other: Pixels) -> float:
    """Mean absolute difference."""
    return float(np.abs(one - other).mean())
