"""A stream with LoRAs on all faders: chunks while the faders rest against chunks while all of them are swept at 60 Hz.

Resting and swept stretches take turns, so that a busy machine slows both. A fader that moves 60 times a second has a
new value at every chunk; of the moves within a chunk the newest counts, as in the engine process.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from safetensors.torch import save_file

from engine.bench.engine import scene
from engine.bench.report import percentile
from engine.config import Config, LoraConfig
from engine.controls import LORA_SLOTS, Controls
from engine.errors import ModelError
from engine.frame import Frame
from engine.models import lora_file, registry
from engine.models.spec import ModelSpec
from engine.session import Session
from engine.stream.stream import LocalStream

COLUMNS = {
    "model": "model",
    "size": "size",
    "loras": "LoRAs",
    "rank": "rank",
    "still_ms.p50": "still ms p50",
    "still_ms.p99": "p99",
    "swept_ms.p50": "swept ms p50",
    "swept_ms.p99": "p99",
    "ratio": "median ratio",
    "merged_kib": "KiB merged a chunk",
    "refreshed": "text read again a chunk",
    "grown_mib": "grown MiB",
    "moved": "addresses moved",
}
"""Headings of the table by dotted name of the figure."""

HZ = 60.0
"""Moves of a fader in a second."""

WARM_CHUNKS = 12
"""Chunks at the start that are not counted: each weight's original is kept at its first merge."""

STRETCH = 8
"""Chunks of a resting or swept stretch."""

PERIOD_S = 1 / 25


def random_lora(spec: ModelSpec, path: Path, rank: int, seed: int) -> None:
    """Write a LoRA with random pairs for all ten matrices of each block, in bfloat16."""
    generator, file = torch.Generator().manual_seed(seed), {}
    for name, weight in lora_file.parameters_of(spec.network).items():  # type: ignore[arg-type]
        if name.startswith("blocks.") and name.endswith(".weight") and weight.dim() == 2:
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            outputs, inputs = weight.shape
            down = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
            file[f"{module}.lora_A.weight"] = down.bfloat16()
            file[f"{module}.lora_B.weight"] = (torch.randn(outputs, rank, generator=generator) * 0.02).bfloat16()
    save_file(file, path)


def measure(config: Config, *, loras: int = LORA_SLOTS, rank: int = 8, stretches: int = 8) -> dict[str, Any]:
    """Measure one model; its weights are random if they are not on this machine.

    Args:
        config: model, size, device, ...
        loras: number of LoRAs.
        rank: rank of each.
        stretches: number of swept stretches, and of resting ones.

    Raises:
        ModelError: if the model takes no LoRA.
    """
    spec = registry.get(config.model)
    if not lora_file.takes_lora(spec):
        raise ModelError(f"{spec.title} takes no LoRA.", "Choose another model (tidecast models list).")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.safetensors" for number in range(loras)]
        for seed, path in enumerate(paths):
            random_lora(spec, path, rank, seed)
        given = tuple(LoraConfig(file=str(path)) for path in paths)
        with Session.open(config.model_copy(update={"loras": given}), files={}) as session:
            row = _measured(session, stretches)
    return {"model": spec.name, "size": f"{config.width}x{config.height}", "loras": loras, "rank": rank, **row}


def _measured(session: Session, stretches: int) -> dict[str, Any]:
    stream = session._stream
    assert isinstance(stream, LocalStream)
    frames = ((n, pixels) for n, pixels in enumerate(scene(session.config.width, session.config.height)))
    merge = stream.loras.merge
    still: list[float] = []
    swept: list[float] = []
    merged = refreshed = 0
    rest = controls_at(0.0)
    seconds = 0.0

    def chunk(controls: Controls) -> float:
        while not session.ready:
            n, pixels = next(frames)
            session.feed(Frame(pixels, pts_ns=int(n * PERIOD_S * 1e9), seq=n))
        began = time.perf_counter()
        session.step(controls)
        return time.perf_counter() - began

    def settle() -> None:
        """Merge all weights with the strengths of the resting faders, and let a chunk pass."""
        stream.loras.blend(rest.lora_strengths(), float("inf"))
        chunk(rest)

    for number in range(WARM_CHUNKS):
        chunk(controls_at(number * 4 * PERIOD_S))
    settle()
    addresses = _addresses(stream)
    grown = _resident()
    for _ in range(stretches):
        for moving, times in ((False, still), (True, swept)):
            for _ in range(STRETCH):
                seconds += 4 * PERIOD_S
                before = merge.merged_bytes, merge.refreshed
                times.append(1e3 * chunk(controls_at(seconds) if moving else rest))
                merged, refreshed = merged + merge.merged_bytes - before[0], refreshed + merge.refreshed - before[1]
            rest = controls_at(seconds)
            if moving:
                settle()
    moved = sum(_addresses(stream)[name] != place for name, place in addresses.items())
    return {
        "still_ms": {f"p{int(q * 100)}": percentile(still, q) for q in (0.5, 0.95, 0.99)},
        "swept_ms": {f"p{int(q * 100)}": percentile(swept, q) for q in (0.5, 0.95, 0.99)},
        "ratio": median(swept) / median(still),
        "merged_kib": merged / len(swept) / 2**10,
        "refreshed": refreshed / len(swept),
        "grown_mib": (_resident() - grown) / 2**20,
        "moved": moved,
    }


def controls_at(seconds: float) -> Controls:
    """All faders at a time of the sweep: each on a curve of its own, as the last of its moves before left it."""
    last = math.floor(seconds * HZ) / HZ
    faders = range(1, LORA_SLOTS + 1)
    values: dict[str, Any] = {f"lora_{n}": 1.5 * math.sin(2 * math.pi * (0.11 * n * last + n / 8)) for n in faders}
    return dataclasses.replace(Controls(prompt_1="a forest", strength=0.7, steps=2), **values)


def _addresses(stream: LocalStream) -> dict[str, int]:
    named = dict(stream.network.named_parameters())  # type: ignore[attr-defined]
    return {name: tensor.data_ptr() for name, tensor in (*stream.state.tensors(), *named.items())}


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)
