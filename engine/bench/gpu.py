"""Everything that only a GPU can show, in one call: is it right, how fast is it, how far from the limit.

    python -m engine.bench.gpu --json figures.json               all parts, on a bare machine with torch and this folder
    python -m engine.bench.gpu --parts check,engine --models wan21-1.3b

Parts: `check` holds the device in bf16 against the CPU in fp32 on a tiny model with the same noise; `engine` times the
true shapes with random weights; `versus` times the published implementation beside ours where it is installed. A part
that fails is reported and the next one runs; the exit status says whether all went well.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.bench import report, versus
from engine.bench.engine import COLUMNS, Ask, measure
from engine.controls import Config
from engine.errors import ModelError
from engine.kv import Rule
from engine.models import registry
from engine.noise import RELEASED
from engine.steps import steps_for
from engine.stream import Stream

SIZES = ((512, 512), (832, 480))
"""Width and height of the published figures."""

RELATIVE_RMS = 0.05
"""Most that bf16 latents may differ from fp32 ones, as a share of their size (the reference itself: 0.007 to 0.03)."""

PSNR_DB = 40.0
"""Least likeness of bf16 pixels to fp32 ones (the reference itself: 47 to 55 dB)."""


class HostNoise:
    """The same noise on every device: drawn on the host."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self._shape, self._device = shape, device
        self._generator = torch.Generator().manual_seed(5)

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """Noise [count, C, frames, h, w]."""
        channels, height, width = self._shape
        noise = torch.randn((count, channels, frames, height, width), generator=self._generator)
        return noise.to(self._device)


def play(device: torch.device, dtype: torch.dtype, steps: int, size: int = 96) -> tuple[Tensor, Tensor]:
    """Latents and pixels of a short moving scene through the tiny model."""
    spec = registry.get("wan21-tiny")
    parts = registry.builder(spec)
    cpu = torch.device("cpu")
    dit = parts.build_dit(spec, cpu, torch.float32, {}).to(device, dtype)
    codec = parts.build_codec(spec, "full", device, dtype, {})
    stream = Stream(
        spec, dit, codec, height=size, width=size, noise=HostNoise((16, size // 8, size // 8), device),
        rule=Rule.HONEST, noise_rule=RELEASED, batch=True, max_steps=steps,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(6)
    text = torch.randn(spec.dit.text_len, spec.dit.text_dim, generator=generator)
    text[9:] = 0
    stream.read(text.to(device))
    scene = torch.rand(3, 1, size, size, generator=generator) * 2 - 1
    latents, pixels = [], []
    for chunk in range(12):
        noise = torch.rand(3, 5 if chunk == 0 else 4, size, size, generator=generator)
        video = (scene + 0.2 * noise).clamp(-1, 1).to(device, dtype)
        wanted = steps_for(spec.schedule, 0.8, steps)
        x, first = stream.encode(video, wanted)
        for _, clean in stream.denoise(x, first, wanted.timesteps, chunk):
            latents.append(clean.float().cpu())
            pixels.append(stream.decode(clean).float().cpu())
    return torch.cat(latents, 2), torch.cat(pixels, 1)


def check(device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Hold the device against the CPU in fp32, with 1, 2 and 4 steps.

    Raises:
        ModelError: if a difference is larger than the arithmetic explains.
    """
    rows: list[dict[str, Any]] = []
    for steps in (1, 2, 4):
        want, want_pixels = play(torch.device("cpu"), torch.float32, steps)
        got, got_pixels = play(device, dtype, steps)
        rms = ((got - want).square().mean() / want.square().mean()).sqrt().item()
        error = (got_pixels - want_pixels).square().mean().item()
        psnr = 10 * math.log10(4.0 / max(error, 1e-12))
        rows.append({"steps": steps, "dtype": str(dtype), "relative_rms": rms, "psnr_db": psnr})
    wrong = [r for r in rows if not (r["relative_rms"] <= RELATIVE_RMS and r["psnr_db"] >= PSNR_DB)]
    if wrong:
        raise ModelError(f"{device} in {dtype} differs from the CPU: {wrong}.")
    return rows


def engine(device: str, models: list[str], chunks: int) -> list[dict[str, Any]]:
    """Time the true shapes with random weights: full and tiny VAE, 1 and 2 steps."""
    rows = []
    for model in models:
        for width, height in SIZES:
            for vae in ("full", "tiny"):
                config = Config(model=model, width=width, height=height, device=device, vae=vae)  # type: ignore[arg-type]
                rows += measure(config, [Ask(steps, chunks, input_fps=30.0) for steps in (1, 2)])
                gc.collect()
                torch.cuda.empty_cache()
    return rows


def main() -> None:
    """Run the parts that were asked for; print their tables, and everything as JSON last."""
    parser = argparse.ArgumentParser(description="Check and time the engine on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default="check,engine,versus")
    parser.add_argument("--models", default="wan21-1.3b,wan21-14b")
    parser.add_argument("--chunks", type=int, default=30)
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    dtype = torch.bfloat16
    failed = []
    for part in asked.parts.split(","):
        path = asked.json.with_suffix(f".{part}.json") if asked.json else None
        try:
            if part == "check":
                columns = {name: name for name in ("steps", "dtype", "relative_rms", "psnr_db")}
                report.show("check against the CPU", check(device, dtype), columns, path=path)
            elif part == "engine":
                report.show("engine", engine(asked.device, asked.models.split(","), asked.chunks), COLUMNS, path=path)
            elif part == "versus":
                rows = [versus.run(case, device, dtype) for case in versus.GPU_CASES]
                report.show("against the published implementation", rows, versus.COLUMNS, path=path)
            else:
                parser.error(f"there is no part {part!r}: check, engine, versus")
        except (ModelError, RuntimeError) as error:  # RuntimeError: whatever CUDA reports; the other parts still count
            traceback.print_exc()
            failed.append(f"{part}: {error}")
    if failed:
        print("FAILED: " + "; ".join(failed))
        sys.exit(1)


if __name__ == "__main__":
    main()
