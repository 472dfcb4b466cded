"""Finds the largest size of the model's picture that this machine holds, by measuring a few chunks. Loads no torch.

The engine process that measures is one of its own: the frame rings are made for the size that it finds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bridge.process.engine.choice import LARGEST_SIDE, LEAST_SIDE, MULTIPLE, Size, size_text
from bridge.process.engine_session import EngineSession
from bridge.process.messages import SizeFound, Start
from engine.controls import Controls
from engine.errors import EngineError, OutOfMemoryError
from engine.frame import Frame
from engine.schedule import Cost, Goal, Plan, holds, observe

PIXELS = (336 * 192, 384 * 216, 512 * 288, 640 * 360, 848 * 480, 1024 * 576, 1280 * 720)
"""Pixels of the sizes that are tried."""

CHUNKS = 6
"""Chunks that are measured at each size."""

MOST_S = 3.0
"""Longest time for the chunks of one size, in s; a chunk that was begun is finished."""

Open = Callable[[Start], contextlib.AbstractContextManager[EngineSession]]
"""Opens the session that a `Start` asks for."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the chunks of one size take.

    Attributes:
        seconds: the median; infinite if the model does not fit into the memory at this size.
        period_s: how long the pictures of a chunk last at the wanted rate.
        holds: whether rate and latency hold.
        steps: the denoising steps with which it was measured.
    """

    seconds: float
    period_s: float
    holds: bool
    steps: int = 0


def ladder(aspect: float) -> tuple[Size, ...]:
    """The sizes to try, smallest first.

    Args:
        aspect: width through height.
    """
    found = {(_side((pixels * aspect) ** 0.5), _side((pixels / aspect) ** 0.5)) for pixels in PIXELS}
    return tuple(sorted(found, key=lambda size: size[0] * size[1]))


def _side(pixels: float) -> int:
    return min(max(round(pixels / MULTIPLE) * MULTIPLE, LEAST_SIDE), LARGEST_SIDE)


def search(sizes: Sequence[Size], measure: Callable[[Size], Timing]) -> tuple[Size, dict[Size, Timing]]:
    """The largest size that holds, and what was measured; the smallest if none does.

    A larger one is slower, so half of the sizes that are left are decided by each measurement.

    Args:
        sizes: at least one, smallest first.
        measure: measures one size.
    """
    low, high = 0, len(sizes) - 1
    found: dict[Size, Timing] = {}
    while low <= high:
        middle = (low + high + 1) // 2
        found[sizes[middle]] = measure(sizes[middle])
        low, high = (middle + 1, high) if found[sizes[middle]].holds else (low, middle - 1)
    return sizes[max(high, 0)], found


def find_size(start: Start, open_session: Open, say: Callable[[str], None]) -> SizeFound:
    """Measure and choose.

    Args:
        start: with a `trial`.
        open_session: opens a model; called once for each size.
        say: called with a short text at every size.

    Raises:
        TidecastError: the model cannot be opened at all.
    """
    trial = start.trial
    if trial is None:
        raise EngineError("There are no sizes to measure.")

    def measure(size: Size) -> Timing:
        say(f"measuring {size_text(size)}")
        sized = start.config.model_copy(update={"width": size[0], "height": size[1]})
        try:
            with open_session(dataclasses.replace(start, config=sized, trial=None)) as session:
                return timing(session, dataclasses.replace(start, config=sized))
        except OutOfMemoryError:
            return Timing(float("inf"), 0.0, False)

    size, found = search(trial.sizes, measure)
    return SizeFound(size, _told(size, found, start))


def timing(session: EngineSession, start: Start, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """Measure the chunks of an open session with the wanted steps.

    Not counted are the first chunk, which warms up, and those that return nothing, because the stream batch fills.
    """
    assert start.trial is not None
    config, spec, fps = start.config, session.spec, start.trial.fps
    steps = min(start.controls.steps, config.max_steps, spec.most_steps)
    controls = dataclasses.replace(start.controls, steps=steps)
    batch = config.batch and spec.batches
    period_s = spec.frames_per_latent * spec.frames_per_block / fps
    taken: list[float] = []
    first_s, number, end_s = 0.0, 0, clock() + MOST_S
    while len(taken) < CHUNKS and (clock() < end_s or not first_s):
        for _ in range(session.frames_needed):
            number += 1
            session.feed(_frame(config.width, config.height, number, fps))
        began_s = clock()
        done = _chunk(session, controls)
        took_s = clock() - began_s
        if first_s and done:
            taken.append(took_s)
        first_s = first_s or max(took_s, 1e-9)
    seconds = statistics.median(taken or [first_s])
    goal = Goal(
        steps=steps,
        latency_s=controls.slo_latency / 1e3,
        fps=fps,
        frames_per_latent=spec.frames_per_latent * spec.frames_per_block,
        batch=batch,
        extra_forwards=spec.extra_forwards,
    )
    cost = observe(Cost(), Plan(steps if batch else 1, steps, extra_forwards=spec.extra_forwards), seconds)
    return Timing(seconds, period_s, holds(goal, cost, fps), steps)


def _chunk(session: EngineSession, controls: Controls) -> bool:
    """Process one chunk; returns whether it gave frames."""
    session.begin(controls)
    return bool(session.collect_chunks())


def _frame(width: int, height: int, number: int, fps: float) -> Frame:
    """A moving picture: what does not move is not what a show costs."""
    across = (np.arange(width) + 4 * number) % 256
    pixels = np.broadcast_to(across[None, :, None], (height, width, 3)).astype(np.uint8, order="C")
    time_ns = round(number * 1e9 / fps)
    return Frame(pixels, pts_ns=time_ns, captured_ns=time_ns, seq=number)


def _told(size: Size, found: dict[Size, Timing], start: Start) -> str:
    """What follows from what was measured, in two sentences."""
    assert start.trial is not None
    steps = max(timing.steps for timing in found.values())
    goal = (
        f"{start.trial.fps:g} pictures a second and {start.controls.slo_latency:.0f} ms "
        f"with {steps} {'step' if steps == 1 else 'steps'}"
    )
    if any(timing.holds for timing in found.values()):
        chosen = f"{size_text(size)} is the largest size that holds {goal}."
    else:
        chosen = f"No size holds {goal}, so it is the smallest, {size_text(size)}."
    period_ms = max(timing.period_s for timing in found.values()) * 1e3
    tried = sorted(found, key=lambda size: size[0] * size[1])
    return f"{chosen} A chunk of {period_ms:.0f} ms took {', '.join(_taken(size, found[size]) for size in tried)}."


def _taken(size: Size, timing: Timing) -> str:
    if timing.seconds == float("inf"):
        return f"more memory than there is at {size_text(size)}"
    return f"{timing.seconds * 1e3:.0f} ms at {size_text(size)}"
