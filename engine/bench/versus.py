"""Side-by-side benchmark against the published implementation: same shapes, same random weights, same noise.

    python -m engine.bench.versus                 the configurations for a CPU, fp32, two threads
    python -m engine.bench.versus --device cuda   bf16, full VAE at both ends, 512x512 and 832x480, 1 and 2 steps

Needs the published package (see `engine.bench.reference`). The two take turns chunk by chunk, so that changes in the
machine's speed affect both; with one step, the latents of every chunk are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from engine.bench import report
from engine.bench.reference import Reference
from engine.errors import ModelError
from engine.models import registry
from engine.models.spec import CacheShape, ModelSpec
from engine.models.wan21.vae import WanCodec
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape, dit_shape
from engine.runtime import graph_capture
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED
from engine.stream.stream import LocalStream
from engine.stream.timesteps import mix

COLUMNS = {
    "case": "configuration",
    "steps": "steps",
    "batch": "batch",
    "ours_ms.network": "ours: network ms",
    "reference_ms.network": "reference",
    "times.network": "times",
    "ours_ms.chunk": "ours: chunk ms",
    "reference_ms.chunk": "reference",
    "times.chunk": "times",
    "difference": "largest difference of x0",
}

NARROW = DiTShape(dim=128, heads=4, layers=4, ffn=256, text_dim=64)
WIDE = DiTShape(dim=1536, heads=12, layers=2, ffn=8960)


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration.

    Attributes:
        name: shown in the table.
        shape: the network.
        height, width: pixels.
        steps: denoising steps.
        batch: whether the stream batch is used.
        vae: whether the VAE encodes and decodes too.
        chunks: measured chunks.
    """

    name: str
    shape: DiTShape
    height: int
    width: int
    steps: int
    batch: bool = True
    vae: bool = False
    chunks: int = 30


CPU_CASES: tuple[Case, ...] = (
    *(Case("tiny, network only", NARROW, 96, 160, n, chunks=60) for n in (1, 2, 4)),
    *(Case("tiny, network only", NARROW, 96, 160, n, batch=False, chunks=60) for n in (2, 4)),
    *(Case("2 layers at 1.3B width, network only", WIDE, 480, 832, n, chunks=3) for n in (1, 2)),
    Case("2 layers at 1.3B width and the true VAE", WIDE, 128, 128, 2, vae=True, chunks=3),
)

GPU_CASES: tuple[Case, ...] = tuple(
    Case("1.3B and the full VAE", dit_shape(registry.get("wan21-1.3b").network), height, width, n, vae=True, chunks=30)
    for height, width in ((512, 512), (480, 832))
    for n in (1, 2)
)


class SeededNoise:
    """Source of the noise between denoising steps, from a fixed seed.

    It differs from the reference's. With one step there is none, so latents can be compared only then.

    Args:
        shape: C, h, w.
        device: where the noise is drawn.
    """

    def __init__(self, shape: Sequence[int], device: torch.device) -> None:
        self._shape, self._device = tuple(shape), device
        self._generator = torch.Generator(device).manual_seed(1)

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """Gaussian noise [count, C, frames, h, w]."""
        channels, height, width = self._shape
        return torch.randn((count, channels, frames, height, width), generator=self._generator, device=self._device)


def run(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Measure one configuration with both implementations; median times in ms.

    Raises:
        ModelError: if the published implementation is not installed, or our stream cannot be captured.
    """
    spec = replace(registry.get("wan21-1.3b"), network=case.shape, cache=CacheShape(slots=6, sinks=3), vae={"base": 96})
    text = torch.randn(1, case.shape.text_len, case.shape.text_dim, device=device) * 0.1
    text[:, 12:] = 0
    ours, weights, vae = _ours(spec, case, device, dtype)
    mode = graph_capture.choose("auto", device)
    if mode != "off":
        problem = graph_capture.prepare(spec, ours, mode, case.height, case.width, lambda _: None)
        if problem:
            raise ModelError(problem)
    ours.set_prompt(text[0])
    reference = Reference(
        dit_shape(spec.network),
        spec.cache,
        spec.schedule,
        steps=case.steps,
        height=case.height,
        width=case.width,
        dit=weights,
        text=text.float(),
        vae=vae,
        batch=case.batch,
        device=device,
        dtype=dtype,
    )

    timesteps = spec.schedule.steps[: case.steps]
    first = torch.tensor(timesteps[0], device=device)
    latent = (1, 16, 1, case.height // 8, case.width // 8)
    times: dict[str, list[float]] = {"ours": [], "ours_all": [], "reference": [], "reference_all": []}
    largest = 0.0
    for chunk in range(-1, case.chunks + 4):
        frames = 2 if chunk < 0 else 1
        noise = torch.randn(*latent[:2], frames, *latent[3:], device=device)
        video = torch.rand(1, 3, 5 if chunk < 0 else 4, case.height, case.width, device=device, dtype=dtype) * 2 - 1

        def ours_step(noise: Tensor = noise, video: Tensor = video) -> tuple[Tensor | None, float]:
            x = mix(ours.mean(video[0]).float(), noise, 0.8) if case.vae else noise
            started = _now(device)
            done = ours.denoise(x, first, timesteps, "chunk")
            network_s = _now(device) - started
            clean = done[-1][1] if done else None
            if case.vae:
                ours.decode(clean if clean is not None else x)
            return clean, network_s

        def reference_step(
            noise: Tensor = noise, video: Tensor = video, first_block: bool = chunk < 0
        ) -> tuple[Tensor, float]:
            x = mix(reference.encode(video).float(), noise, 0.8) if case.vae else noise
            x = x.transpose(1, 2).to(dtype)
            started = _now(device)
            clean = reference.first(x) if first_block else reference.step(x)
            network_s = _now(device) - started
            if case.vae:
                reference.decode(clean.transpose(1, 2).to(dtype))
            return clean.transpose(1, 2), network_s

        (clean, network), whole = _timed(ours_step, device)
        (other, other_network), other_whole = _timed(reference_step, device)
        if case.steps == 1 and clean is not None:
            largest = max(largest, (clean.float() - other.float()).abs().max().item())
        if chunk >= 4:
            times["ours"].append(network)
            times["ours_all"].append(whole)
            times["reference"].append(other_network)
            times["reference_all"].append(other_whole)
    ms = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    return {
        "case": case.name,
        "size": f"{case.width}x{case.height}",
        "steps": case.steps,
        "batch": case.batch,
        "ours_ms": {"network": ms["ours"], "chunk": ms["ours_all"]},
        "reference_ms": {"network": ms["reference"], "chunk": ms["reference_all"]},
        "times": {"network": ms["reference"] / ms["ours"], "chunk": ms["reference_all"] / ms["ours_all"]},
        "difference": largest if case.steps == 1 else None,
    }


def _ours(
    spec: ModelSpec, case: Case, device: torch.device, dtype: torch.dtype
) -> tuple[LocalStream, dict[str, Tensor], dict[str, Tensor] | None]:
    parts = registry.builder(spec)
    dit = cast(CausalDiT, parts.build_network(spec, device, dtype, {}))
    weights = {name: tensor.clone() for name, tensor in dit.state_dict().items()}
    codec = cast(WanCodec, parts.build_codec(spec, "full", device, dtype, {}))
    vae = {name: tensor.clone() for name, tensor in codec.network.state_dict().items()} if case.vae else None
    stream = LocalStream(
        spec,
        dit,
        codec,
        height=case.height,
        width=case.width,
        noise=SeededNoise((16, case.height // 8, case.width // 8), device),
        rule=Rule.REFERENCE,
        noise_rule=RELEASED,
        batch=case.batch,
        max_steps=case.steps,
    )
    return stream, weights, vae


def _now(device: torch.device) -> float:
    """Time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    started = _now(device)
    result = work()
    return result, _now(device) - started


def main() -> None:
    """Measure the configurations for the device and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a configuration's name")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    cases = CPU_CASES if device.type == "cpu" else GPU_CASES
    rows = []
    for case in cases:
        if args.only in case.name:
            rows.append(run(case, device, dtype))
            print({name: round(value, 3) for name, value in rows[-1]["times"].items()}, case, flush=True)
    report.show(f"Comparison with the published implementation, {device.type} {dtype}", rows, COLUMNS, path=args.json)


if __name__ == "__main__":
    main()
