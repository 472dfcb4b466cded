"""Benchmark of the stream on a CPU, with recorded times of the published implementation for comparison.

    python -m engine.bench.cpu            fp32, two threads; medians per chunk
    python -m engine.bench.cpu --only tiny

The times of the published implementation were recorded once, on two idle CPU cores, so the ratios are only meaningful
on a similar machine. `engine.bench.versus` measures both in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.bench import report
from engine.bench.versus import CPU_CASES, Case, SeededNoise
from engine.models import registry
from engine.models.spec import CacheShape
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

REFERENCE_MS: dict[tuple[str, int, bool], tuple[float, float]] = {
    ("tiny, network only", 1, True): (13.3, 14.4),
    ("tiny, network only", 2, True): (27.3, 28.5),
    ("tiny, network only", 4, True): (34.0, 35.1),
    ("tiny, network only", 2, False): (31.8, 32.9),
    ("tiny, network only", 4, False): (63.6, 64.8),
    ("2 layers at 1.3B width, network only", 1, True): (3150.0, 3160.0),
    ("2 layers at 1.3B width, network only", 2, True): (6190.0, 6200.0),
    ("2 layers at 1.3B width and the true VAE", 2, True): (320.0, 7860.0),
}
"""Recorded medians in ms of (network, whole chunk), by (configuration, steps, whether the stream batch is used)."""

COLUMNS = {
    "case": "configuration",
    "steps": "steps",
    "batch": "batch",
    "ms.encode": "encode ms",
    "ms.network": "network ms",
    "ms.decode": "decode ms",
    "ms.chunk": "chunk ms",
    "reference_ms.network": "reference: network",
    "reference_ms.chunk": "reference: chunk",
    "times.network": "times",
    "times.chunk": "times (chunk)",
}


def run(case: Case) -> dict[str, Any]:
    """Measure one configuration; medians over its chunks in ms."""
    cpu = torch.device("cpu")
    spec = replace(registry.get("wan21-1.3b"), network=case.shape, cache=CacheShape(slots=6, sinks=3))
    parts = registry.builder(spec)
    stream = LocalStream(
        spec,
        parts.build_network(spec, cpu, torch.float32, {}),
        parts.build_codec(spec, "full", cpu, torch.float32, {}),
        height=case.height,
        width=case.width,
        noise=SeededNoise((16, case.height // 8, case.width // 8), cpu),
        rule=Rule.REFERENCE,
        noise_rule=RELEASED,
        batch=case.batch,
        max_steps=case.steps,
    )
    text = torch.randn(case.shape.text_len, case.shape.text_dim) * 0.1
    text[12:] = 0
    stream.set_prompt(text)
    steps = steps_for(spec.schedule, spec.schedule.strength, case.steps)
    taken: dict[str, list[float]] = {"encode": [], "network": [], "decode": [], "chunk": []}
    for chunk in range(-1, case.chunks + 4):
        noisy = torch.randn(1, 16, 2 if chunk < 0 else 1, case.height // 8, case.width // 8)
        first = torch.tensor(steps.timesteps[0])
        video = torch.rand(3, 5 if chunk < 0 else 4, case.height, case.width) * 2 - 1
        marks = [time.perf_counter()]
        if case.vae:
            noisy, first = stream.encode(video, steps)
        marks.append(time.perf_counter())
        done = stream.denoise(noisy, first, steps.timesteps, chunk)
        marks.append(time.perf_counter())
        if case.vae:
            for _, clean in done:
                stream.decode(clean)
        marks.append(time.perf_counter())
        if chunk >= 4:
            for name, begin, end in (("encode", 0, 1), ("network", 1, 2), ("decode", 2, 3), ("chunk", 0, 3)):
                taken[name].append(1e3 * (marks[end] - marks[begin]))
    ms = {name: statistics.median(values) for name, values in taken.items()}
    network, whole = REFERENCE_MS[case.name, case.steps, case.batch]
    return {
        "case": case.name,
        "size": f"{case.width}x{case.height}",
        "steps": case.steps,
        "batch": case.batch,
        "ms": ms,
        "reference_ms": {"network": network, "chunk": whole},
        "times": {"network": network / ms["network"], "chunk": whole / ms["chunk"]},
    }


def main() -> None:
    """Measure the configurations and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a configuration's name")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [run(case) for case in CPU_CASES if args.only in case.name]
    report.show(f"Stream on a CPU, fp32, {args.threads} threads", rows, COLUMNS, path=args.json)


if __name__ == "__main__":
    main()
