"""Times a whole model, uint8 frame in to uint8 frame out: throughput, first frame, latency, distance to the limit.

Two runs per configuration: one as fast as it goes (frame rate, stage times), one at the input's pace (latency, jitter,
deadline misses). Random weights of the true shape where the real ones are not on the machine; the row says which.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import psutil
import torch

from engine.bench.report import percentile
from engine.config import Config
from engine.controls import Controls
from engine.errors import WeightsMissingError
from engine.frame import Frame
from engine.network import attention
from engine.network.dit_shape import DiTShape
from engine.planning import roofline
from engine.session import Session

COLUMNS = {
    "model": "model",
    "size": "size",
    "steps": "steps",
    "weights": "weights",
    "dtype": "dtype",
    "fps": "FPS",
    "stages_ms.encode": "encode ms",
    "stages_ms.dit": "network ms",
    "stages_ms.decode": "decode ms",
    "first_frame_ms": "first frame ms",
    "latency_ms.p50": "latency p50",
    "latency_ms.p95": "p95",
    "latency_ms.p99": "p99",
    "jitter_ms": "jitter ms",
    "missed": "missed",
    "memory_gib": "memory GiB",
    "of_limit.network": "network of limit",
    "of_limit.vae": "VAE of limit",
}
"""Figures of the table, and their headings."""

WARM_CHUNKS = 6
"""Chunks that are not counted at the start of a run: enough to fill every model's cache and rows."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to measure: steps, chunks a run, rate of the paced run's input (0: no paced run), wanted latency in s."""

    steps: int
    chunks: int = 40
    input_fps: float = 30.0
    latency_s: float = 0.4
    prompt: str = "blue neon sketch"


def scene(width: int, height: int) -> Iterator[np.ndarray]:
    """An endless moving picture: a bright disc that circles over a drifting gradient, a dozen frames in all."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    frames = []
    for n in range(12):
        angle = n / 12 * 2 * np.pi
        cx, cy = width * (0.5 + 0.3 * np.cos(angle)), height * (0.5 + 0.3 * np.sin(angle))
        disc = np.hypot(x - cx, y - cy) < 0.15 * min(width, height)
        pixels = np.stack((x / width, y / height, 0.5 + 0.5 * np.sin(x / 23 + angle)), axis=-1) * 200
        pixels[disc] = (255, 240, 90)
        frames.append(pixels.astype(np.uint8))
    while True:
        yield from frames


def open_session(config: Config) -> tuple[Session, str]:
    """The model with its weights, or with random ones of its shape; and which ("released" or "random")."""
    try:
        return Session.open(config), "released"
    except WeightsMissingError:
        return Session.open(config, files={}), "random"


def measure(config: Config, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """Measure a model at one size, each of `asks` in turn."""
    session, weights = open_session(config)
    with session:
        ceiling = measured_ceiling(session.device, session.dtype)
        rows = []
        for ask in asks:
            row: dict[str, Any] = {
                "model": config.model,
                "width": config.width,
                "height": config.height,
                "size": f"{config.width}x{config.height}",
                "steps": ask.steps,
                "batch": config.batch,
                "weights": weights,
                "device": session.device.type,
                "dtype": str(session.dtype).removeprefix("torch."),
                "vae": config.vae,
                "compile": config.compile,
                "weights_dtype": config.weights_dtype,
                "threads": torch.get_num_threads(),
            }
            row |= _throughput(session, ask)
            row["of_limit"] = _of_limit(session, ask.steps, row["stages_ms"], ceiling)
            if ask.input_fps:
                row |= _paced(session, ask)
            row["memory_gib"] = _memory(session.device)
            row["attention"] = {str(form): dict(found.times_ms) for form, found in attention.decisions.items()}
            rows.append(row)
    return rows


def _throughput(session: Session, ask: Ask) -> dict[str, Any]:
    """As fast as it goes: frames a second over the counted chunks, median stage times, time to the first frame.

    As on stage, a chunk is begun before the one before it is collected.
    """
    session.reset()
    controls = Controls(prompt_1=ask.prompt, steps=ask.steps, strength=0.7)
    frames = _frames(session)
    _feed(session, frames)
    began = time.perf_counter()
    session.step(controls)
    first_ms, trouble = (time.perf_counter() - began) * 1e3, session.health.trouble
    stages: list[dict[str, float]] = []
    out_frames = 0
    _feed(session, frames)
    session.begin(controls)
    for chunk in range(WARM_CHUNKS + ask.chunks):
        if chunk == WARM_CHUNKS:
            began, out_frames, stages = time.perf_counter(), 0, []
        _feed(session, frames)
        session.begin(controls)
        out_frames += len(session.collect())
        stages.append(session.health.stages)
    seconds = time.perf_counter() - began
    session.collect()
    names = stages[0]
    return {
        "fps": out_frames / seconds,
        "chunk_ms": seconds / ask.chunks * 1e3,
        "first_frame_ms": first_ms,
        "trouble": trouble,
        "stages_ms": {name: statistics.median(s[name] for s in stages) for name in names},
    }


def _paced(session: Session, ask: Ask) -> dict[str, Any]:
    """At the input's pace: from each frame's arrival to its result; the oldest are dropped when they come too fast."""
    session.reset()
    controls = Controls(prompt_1=ask.prompt, steps=ask.steps, strength=0.7)
    frames = _frames(session)
    period = 1.0 / ask.input_fps
    chunks = WARM_CHUNKS + ask.chunks
    arrivals: dict[int, float] = {}
    latencies: list[float] = []
    times: list[float] = []
    dropped = taken = 0
    begin = time.perf_counter()
    while chunks:
        here = int((time.perf_counter() - begin) / period)
        stale = here - taken - 16
        if stale > 0:
            dropped, taken = dropped + stale, taken + stale
        while taken < here and not session.ready:
            arrivals[taken] = begin + taken * period
            pixels = next(frames).pixels
            session.feed(Frame(pixels, pts_ns=int(taken * period * 1e9), seq=taken))
            taken += 1
        if not session.ready:
            time.sleep(period / 4)
            continue
        done = session.step(controls)
        now = time.perf_counter()
        chunks -= 1
        if done:
            times.append(now)
        latencies += [now - arrivals.pop(frame.seq) for frame in done]
    counted = latencies[session.spec.first_frames :]
    gaps = [b - a for a, b in pairwise(times)]
    late = sum(value > ask.latency_s for value in counted)
    return {
        "input_fps": ask.input_fps,
        "latency_ms": {f"p{int(q * 100)}": percentile(counted, q) * 1e3 for q in (0.5, 0.95, 0.99)},
        "jitter_ms": statistics.pstdev(gaps) * 1e3 if len(gaps) > 1 else 0.0,
        "missed": (late + dropped) / max(1, len(counted) + dropped),
    }


def _frames(session: Session) -> Iterator[Frame]:
    for seq, pixels in enumerate(scene(session.config.width, session.config.height)):
        yield Frame(pixels, pts_ns=seq * 33_333_333, seq=seq)


def _feed(session: Session, frames: Iterator[Frame]) -> None:
    while not session.ready:
        session.feed(next(frames))


def measured_ceiling(device: torch.device, dtype: torch.dtype) -> roofline.Ceiling:
    """What this device reaches in a large matmul and a large copy, measured now: the limit that rows are held to."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = best_of(lambda: a @ b, device)
    source = torch.randn((1 << 28) if device.type == "cuda" else (1 << 24), device=device)
    target = torch.empty_like(source)
    copy_s = best_of(lambda: target.copy_(source), device)
    return roofline.Ceiling(2 * size**3 / seconds, 2 * source.nbytes / copy_s)


def best_of(work: Any, device: torch.device, rounds: int = 7) -> float:
    """Seconds that it takes, the device's part included: the median of the later rounds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


def _of_limit(session: Session, steps: int, stages: dict[str, float], ceiling: roofline.Ceiling) -> dict[str, float]:
    """Share of the time that the counted arithmetic and traffic would take at the measured ceiling.

    Products in 8 bits are held to the ceiling of the wide ones, which they may pass.
    """
    spec, config, element = session.spec, session.config, session.dtype.itemsize
    if not isinstance(spec.network, DiTShape):
        return {}  # nobody has counted what another network has to do
    length = roofline.tokens(spec.network, config.height, config.width, spec.stride)
    flops = steps * roofline.dit_flops(spec.network, length, length * spec.cache.slots)
    calls = 1 if config.batch else steps
    traffic = calls * (1 if config.weights_dtype == "float8" else element) * roofline.dit_parameters(spec.network)
    traffic += steps * roofline.cache_bytes(spec.network, length, spec.cache.slots, element)
    limits = {"network": ceiling.seconds(flops, traffic) * 1e3 / max(stages["dit"], 1e-9)}
    which = spec.default_vae if config.vae == "auto" else config.vae
    if spec.family == "wan21" and which == "full":
        base = int(spec.vae.get("base", 96))
        vae = roofline.vae_encode_flops(config.height, config.width, base)
        vae += roofline.vae_decode_flops(config.height, config.width, base)
        limits["vae"] = ceiling.seconds(vae) * 1e3 / max(stages["encode"] + stages["decode"], 1e-9)
    return limits


def _memory(device: torch.device) -> float:
    """Most memory that was in use, GiB: the accelerator's, or this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return psutil.Process().memory_info().rss / 2**30
