"""Benchmark of a pipeline on several devices against one device; also compares their results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.bench.engine import WARM_CHUNKS, scene
from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame
from engine.session import Session

COLUMNS = {
    "model": "model",
    "size": "size",
    "devices": "devices",
    "steps": "steps",
    "fps": "FPS",
    "gain": "times one",
    "difference": "largest difference of a pixel (of 255)",
}


def measure(config: Config, devices: Sequence[str], steps: int, chunks: int) -> list[dict[str, Any]]:
    """Measure the same input on the first device alone, on the first two, and so on up to all; one row for each."""
    rows: list[dict[str, Any]] = []
    alone: list[np.ndarray] = []
    for count in range(1, len(devices) + 1):
        update: dict[str, Any] = {"device": devices[0], "devices": tuple(devices[:count]) if count > 1 else ()}
        with Session.open(config.model_copy(update=update), files={}) as session:
            pixels, fps = _play(session, steps, chunks)
        alone = alone or pixels
        rows.append(
            {
                "model": config.model,
                "size": f"{config.width}x{config.height}",
                "devices": count,
                "steps": steps,
                "fps": fps,
                "gain": fps / rows[0]["fps"] if rows else 1.0,
                "difference": max(float(np.abs(a.astype(int) - b).max()) for a, b in zip(pixels, alone, strict=True)),
            }
        )
    return rows


def _play(session: Session, steps: int, chunks: int) -> tuple[list[np.ndarray], float]:
    """All output frames, and the frames per second over the counted chunks."""
    controls = Controls(prompt_1="blue neon sketch", steps=steps, strength=0.8)
    frames = enumerate(scene(session.config.width, session.config.height))
    pixels: list[np.ndarray] = []
    began = time.perf_counter()
    for chunk in range(WARM_CHUNKS + chunks):
        if chunk == WARM_CHUNKS:
            began = time.perf_counter()
        while not session.ready:
            seq, picture = next(frames)
            session.feed(Frame(picture, pts_ns=seq * 33_333_333, seq=seq))
        pixels += [frame.pixels for frame in session.step(controls)]
    seconds = time.perf_counter() - began
    pixels += [frame.pixels for frame in session.flush()]
    return pixels, chunks * session.spec.frames_per_latent / seconds
