"""Benchmark of a whole model, from uint8 frame to uint8 frame: throughput, first frame, latency, share of the roofline.

Each configuration is run twice: once as fast as possible (frame rate, stage times), once at the input's frame rate
(latency, jitter, missed deadlines). If the weights are not on the machine, random ones are used; the row says which.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from engine.models import vram
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
MASK_COLUMNS = {"mask_ms": "mask ms", "mask_fps": "masks/s"}
"""Headings of the table by dotted name of the figure; those of the second are added with a person mask."""

WARM_CHUNKS = 6
"""Chunks at the start of a run that are not counted: enough to fill the cache and the rows of every model."""


INPUT_FRAMES = 16
"""Input frames that may wait; when there are more, the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to measure.

    Attributes:
        steps: denoising steps.
        chunks: counted chunks per run.
        input_fps: frames per second of the input in the second run; 0 to leave that run out.
        latency_s: latency in seconds above which a frame counts as missed.
        prompt: the prompt.
        mask_fps: person masks per second that are made meanwhile, as in the engine process; 0 for none.
    """

    steps: int
    chunks: int = 40
    input_fps: float = 30.0
    latency_s: float = 0.4
    prompt: str = "blue neon sketch"
    mask_fps: float = 0.0


def scene(width: int, height: int) -> Iterator[np.ndarray]:
    """Endless frames [height, width, 3] uint8: a bright disc circles over a gradient; repeats after 12 frames."""
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
    """A session, and its weights: "released", or "random" if those are not on this machine."""
    try:
        return Session.open(config), "released"
    except WeightsMissingError:
        return Session.open(config, files={}), "random"


def measure(config: Config, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """Measure a model at one size; returns one row for each of `asks`."""
    _forget_peak()
    session, weights = open_session(config)
    with session:
        opening_gib = _memory(session.device)
        ceiling = measured_ceiling(session.device, session.dtype)
        _forget_peak()  # the ceiling takes gigabytes that are none of the model's
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
            masking: contextlib.AbstractContextManager[Masking | None] = contextlib.nullcontext()
            if ask.mask_fps:
                masking = Masking(ask.mask_fps)
            with masking as masks:
                row |= _throughput(session, ask)
                if ask.input_fps:
                    row |= _paced(session, ask)
                if masks is not None:
                    row |= masks.figures()
            row["of_limit"] = _of_limit(session, ask.steps, row["stages_ms"], ceiling)
            row["memory_gib"] = max(opening_gib, _memory(session.device))
            row["needs_gib"] = _computed(session, weights)
            row["attention"] = {str(form): dict(found.times_ms) for form, found in attention.decisions.items()}
            rows.append(row)
    return rows


class Masking(threading.Thread):
    """Makes person masks at a steady rate, on a thread of its own, as the engine process does for its input frames.

    Args:
        fps: masks per second.
    """

    def __init__(self, fps: float) -> None:
        super().__init__(name="mask", daemon=True)
        self._period = 1.0 / fps
        self._stopping = threading.Event()
        self._times: list[tuple[float, float]] = []  # when each mask was begun and how long it took, in s

    def __enter__(self) -> Masking:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Make masks until the end of the `with` block."""
        from engine.models.selfie.masker import Masker
        from engine.runtime.device import one_thread_here

        one_thread_here()
        masker = Masker()
        height, width = masker.spec.height, masker.spec.width
        frames = scene(width, height)
        begun = time.perf_counter()
        while not self._stopping.wait(max(0.0, begun - time.perf_counter())):
            now = time.perf_counter()
            masker.mask(next(frames))
            self._times.append((now, time.perf_counter() - now))
            begun = max(begun + self._period, now)

    def figures(self) -> dict[str, float]:
        """Median time of a mask and masks per second, after the first ten."""
        counted = self._times[10:]
        seconds = counted[-1][0] - counted[0][0] if len(counted) > 1 else 0.0
        return {
            "mask_ms": statistics.median(took for _, took in counted) * 1e3 if counted else 0.0,
            "mask_fps": (len(counted) - 1) / seconds if seconds else 0.0,
        }


def _throughput(session: Session, ask: Ask) -> dict[str, Any]:
    """Run as fast as possible: frames per second over the counted chunks, median stage times, time to the first frame.

    As in the bridge, a chunk is started before the previous one is collected.
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
    """Run at the input's frame rate: latency from each frame's arrival to its result; late frames are dropped."""
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
        arrived = int((time.perf_counter() - begin) / period)
        stale = arrived - taken - INPUT_FRAMES
        if stale > 0:
            dropped, taken = dropped + stale, taken + stale
        while taken < arrived and not session.ready:
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
    """The rates that this device reaches in a large matmul and a large copy, measured now."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = median_seconds(lambda: a @ b, device)
    source = torch.randn((1 << 28) if device.type == "cuda" else (1 << 24), device=device)
    target = torch.empty_like(source)
    copy_s = median_seconds(lambda: target.copy_(source), device)
    return roofline.Ceiling(2 * size**3 / seconds, 2 * source.nbytes / copy_s)


def median_seconds(work: Callable[[], object], device: torch.device, rounds: int = 7) -> float:
    """Median duration of `work` in seconds, including the device's work; the first two rounds are not counted."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


def _of_limit(session: Session, steps: int, stages: dict[str, float], ceiling: roofline.Ceiling) -> dict[str, float]:
    """The least time by the roofline as a share of the measured time, for the network and the full VAE.

    8-bit matmuls are compared with the arithmetic rate of 16-bit ones, so that their share can exceed 1.
    """
    spec, config, element = session.spec, session.config, session.dtype.itemsize
    if not isinstance(spec.network, DiTShape):
        return {}  # operations are counted for this kind of network only
    length = roofline.tokens(spec.network, config.height, config.width, spec.stride)
    frames = spec.frames_per_block
    calls, rows = roofline.chunk_forwards(steps, batch=config.batch, clean_pass=spec.schedule.clean_pass)
    flops = rows * roofline.dit_flops(spec.network, frames * length, length * spec.cache.slots)
    traffic = calls * (1 if config.weights_dtype == "float8" else element) * roofline.dit_parameters(spec.network)
    traffic += rows * roofline.cache_bytes(spec.network, length, spec.cache.slots, element)
    limits = {"network": ceiling.seconds(flops, traffic) * 1e3 / max(stages["dit"], 1e-9)}
    which = spec.default_vae if config.vae == "auto" else config.vae
    if spec.family == "wan21" and which == "full":
        base = int(spec.vae.get("base", 96))
        vae = roofline.vae_encode_flops(config.height, config.width, base)
        vae += roofline.vae_decode_flops(config.height, config.width, base)
        limits["vae"] = ceiling.seconds(frames * vae) * 1e3 / max(stages["encode"] + stages["decode"], 1e-9)
    return limits


def _forget_peak() -> None:
    """Start a new measurement of the peak of a GPU's memory, without what was freed before."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
        for number in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(number)


def _computed(session: Session, weights: str) -> float | None:
    """Memory in GiB that `engine.planning.vram` computes for a GPU; None if it is not known."""
    needed = vram.need_of(session.spec, session.config)
    if needed is not None and weights == "random":
        needed = replace(needed, text=0.0)  # random weights have no text encoder
    return needed.gib if needed is not None else None


def _memory(device: torch.device) -> float:
    """Memory in GiB: the peak of what torch reserved on a GPU, graphs included; on a CPU what this process uses now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    return psutil.Process().memory_info().rss / 2**30
