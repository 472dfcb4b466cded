r"""Correctness checks and benchmarks of the engine on a GPU, in one command.

    python -m engine.bench.gpu --json figures.json               all parts; needs torch and a checkout only
    python -m engine.bench.gpu --parts check,engine --models wan21-1.3b
    python -m engine.bench.gpu --device cpu                      tests the script, with tiny shapes

For a GPU machine without a network, download the libraries elsewhere (first command) and install them there (second):

    names="einops numpy pillow platformdirs psutil pydantic rich safetensors"
    python -m pip download -d wheels --only-binary=:all: --python-version 3.12 \
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 $names
    python -m pip install --no-index --find-links wheels $names

Parts:

* `check` compares a tiny model on the device in bf16 with the CPU in fp32, for every mode (eager, captured, compiled,
  8-bit weights), with the same noise.
* `waits` runs a captured stream in which the host must never wait for the device.
* `float8` measures the time and error of 8-bit matmuls at the widths of the models.
* `engine` measures the models with random weights, one row per mode.
* `versus` measures the published implementation too, if it is installed.

A row that fails is reported and the next one runs; the exit status is 1 if any row failed.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.bench import report, versus
from engine.bench.engine import Ask, measure, median_seconds
from engine.bench.reference import installed
from engine.config import Config
from engine.errors import ModelError, TidecastError
from engine.models import registry
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape
from engine.planning import roofline
from engine.runtime import graph_capture, quantise
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

SIZES = "512x512,832x480"
"""Picture sizes of the published figures, WIDTHxHEIGHT."""

MODES: dict[str, dict[str, Any]] = {
    "eager": {"compile": "off"},
    "graphs": {"compile": "graphs"},
    "full": {"compile": "full"},
    "fp8": {"compile": "graphs", "weights_dtype": "float8"},
}
"""Ways to run a model, and the settings of `Config` that select them."""

RELATIVE_RMS = {"eager": 0.05, "graphs": 0.05, "full": 0.05, "fp8": 0.2}
"""Largest allowed error of latents against fp32, as RMS error over RMS (the reference in bf16: 0.007 to 0.03)."""

PSNR_DB = {"eager": 40.0, "graphs": 40.0, "full": 40.0, "fp8": 28.0}
"""Smallest allowed PSNR in dB of pixels against fp32 (the reference in bf16: 47 to 55 dB)."""

CHECK_COLUMNS = {name: name for name in ("mode", "steps", "dtype", "relative_rms", "psnr_db", "failed")}
FLOAT8_COLUMNS = {
    "layer": "layer",
    "tokens": "tokens",
    "bf16_ms": "bf16 ms",
    "float8_ms": "float8 ms",
    "times": "times as fast",
    "relative_rms": "error, relative",
    "bf16_rms": "error of bf16",
    "failed": "failed",
}
ENGINE_COLUMNS = {
    "mode": "mode",
    "model": "model",
    "size": "size",
    "vae": "VAE",
    "steps": "steps",
    "fps": "FPS",
    "first_frame_ms": "first",
    "stages_ms.upload": "up",
    "stages_ms.encode": "encode",
    "stages_ms.dit": "network",
    "stages_ms.decode": "decode",
    "stages_ms.download": "down",
    "latency_ms.p50": "p50",
    "latency_ms.p99": "p99",
    "memory_gib": "GiB",
    "of_limit.network": "net/limit",
    "of_limit.vae": "VAE/limit",
    "failed": "failed",
}
WAITS_COLUMNS = {name: name for name in ("steps", "chunks", "captured", "failed")}


class HostNoise:
    """Noise that is the same on every device, since it is drawn on the host.

    Args:
        shape: C, h, w.
        device: where the noise is copied to.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self._shape, self._device = shape, device
        self._generator = torch.Generator()
        self.reset()

    def reset(self) -> None:
        """Restart from the seed."""
        self._generator.manual_seed(5)

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """Noise [count, C, frames, h, w]."""
        channels, height, width = self._shape
        noise = torch.randn((count, channels, frames, height, width), generator=self._generator)
        return noise.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else noise


def tiny_stream(
    device: torch.device, dtype: torch.dtype, steps: int, mode: str, size: int, vae: str = "full"
) -> LocalStream:
    """A stream of the tiny model with random weights, warmed up in a mode of `MODES`.

    Raises:
        ModelError: if the device does not support the mode.
    """
    spec = registry.get("wan21-tiny")
    parts = registry.builder(spec)
    dit = cast(CausalDiT, parts.build_network(spec, torch.device("cpu"), torch.float32, {})).to(device, dtype)
    if MODES[mode].get("weights_dtype") == "float8":
        quantise.check(device, dtype)
        quantise.quantise(dit)
    codec = parts.build_codec(spec, vae, device, dtype, {})
    noise = HostNoise((16, size // 8, size // 8), device)
    stream = LocalStream(
        spec,
        dit,
        codec,
        height=size,
        width=size,
        noise=noise,
        rule=Rule.HONEST,
        noise_rule=RELEASED,
        batch=True,
        max_steps=steps,
    )
    if mode != "eager":
        problem = graph_capture.prepare(
            spec, stream, graph_capture.choose(MODES[mode]["compile"], device), size, size, lambda _: None
        )
        if problem:
            raise ModelError(problem)
        noise.reset()
    return stream


def play(stream: LocalStream, steps: int) -> tuple[Tensor, Tensor]:
    """Run a short moving scene; returns latents [1, C, F, h, w] and pixels [3, T, H, W], on the CPU in fp32."""
    device, (_, height, width) = stream.device, stream.state.controller.last_frame.shape
    shape, dtype = stream.spec.network, stream.dtype
    generator = torch.Generator().manual_seed(6)
    text = torch.randn(shape.text_len, shape.text_dim, generator=generator)
    text[9:] = 0
    stream.set_prompt(text.to(device))
    scene = torch.rand(3, 1, height, width, generator=generator) * 2 - 1
    latents, pixels = [], []
    for chunk in range(12):
        noise = torch.rand(3, 5 if chunk == 0 else 4, height, width, generator=generator)
        video = (scene + 0.2 * noise).clamp(-1, 1).to(device, dtype)
        wanted = steps_for(stream.spec.schedule, stream.spec.schedule.strength, steps)
        x, first = stream.encode(video, wanted)
        for _, clean in stream.denoise(x, first, wanted.timesteps, chunk):
            latents.append(clean.float().cpu())
            pixels.append(stream.decode(clean).float().cpu())
    return torch.cat(latents, 2), torch.cat(pixels, 1)


@cache
def exact(steps: int, size: int, vae: str) -> tuple[Tensor, Tensor]:
    """Latents and pixels of the scene on the CPU in fp32, to compare with."""
    return play(tiny_stream(torch.device("cpu"), torch.float32, steps, "eager", size, vae), steps)


def check(
    device: torch.device, dtype: torch.dtype, mode: str, steps: int, size: int, vae: str = "full"
) -> dict[str, Any]:
    """Compare the device in a mode with the CPU in fp32.

    Raises:
        ModelError: if the difference exceeds `RELATIVE_RMS` or `PSNR_DB`.
    """
    want, want_pixels = exact(steps, size, vae)
    got, got_pixels = play(tiny_stream(device, dtype, steps, mode, size, vae), steps)
    rms = ((got - want).square().mean() / want.square().mean()).sqrt().item()
    psnr = 10 * math.log10(4.0 / max((got_pixels - want_pixels).square().mean().item(), 1e-12))
    if not (rms <= RELATIVE_RMS[mode] and psnr >= PSNR_DB[mode]):
        raise ModelError(
            f"{device} in {dtype}, {mode}, {steps} steps differs from the CPU: {rms:.3f} relative, {psnr:.1f} dB."
        )
    return {"mode": mode, "steps": steps, "dtype": str(dtype), "relative_rms": rms, "psnr_db": psnr}


def waits(device: torch.device, dtype: torch.dtype, steps: int, size: int, chunks: int = 6) -> dict[str, Any]:
    """Run a captured stream while torch raises an error for every wait for the device. (On a CPU there are none.)

    Raises:
        ModelError: if the capture failed.
        RuntimeError: if the host waited.
    """
    stream = tiny_stream(device, dtype, steps, "graphs", size)
    play(stream, steps)
    wanted = steps_for(stream.spec.schedule, stream.spec.schedule.strength, steps)
    video = torch.rand(3, 4, *stream.state.controller.last_frame.shape[1:]).to(device, dtype)
    with _no_waits(device):
        for chunk in range(chunks):
            x, first = stream.encode(video, wanted)
            for _, clean in stream.denoise(x, first, wanted.timesteps, chunk):
                stream.decode(clean)
    assert isinstance(stream.run, graph_capture.Captured)
    return {"steps": steps, "chunks": chunks, "captured": len(stream.run.keys)}


@contextmanager
def _no_waits(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def float8(device: torch.device, dtype: torch.dtype, inputs: int, outputs: int, tokens: int) -> dict[str, Any]:
    """Compare an 8-bit linear layer with one in `dtype`, on Gaussian inputs: times, and errors against fp32.

    Raises:
        ModelError: if the device does not support 8-bit matmuls.
    """
    quantise.check(device, dtype)
    linear = nn.Linear(inputs, outputs, device=device).requires_grad_(False)
    x = torch.randn(tokens, inputs, device=device)
    exact = linear(x)
    linear, x = linear.to(dtype), x.to(dtype)
    quantised = quantise.Float8Linear(linear.weight, linear.bias)
    bf16_s, float8_s = median_seconds(lambda: linear(x), device), median_seconds(lambda: quantised(x), device)

    def error(found: Tensor) -> float:
        return ((found.float() - exact).norm() / exact.norm()).item()

    return {
        "layer": f"{inputs} to {outputs}",
        "tokens": tokens,
        "bf16_ms": bf16_s * 1e3,
        "float8_ms": float8_s * 1e3,
        "times": bf16_s / float8_s,
        "relative_rms": error(quantised(x)),
        "bf16_rms": error(linear(x)),
    }


def matmuls(models: list[str], width: int, height: int) -> list[tuple[int, int, int]]:
    """(inputs, outputs, tokens) of the large matmuls of each network, for one row of the stream batch."""
    found = []
    for model in models:
        spec = registry.get(model)
        shape = dit_shape(spec.network)
        tokens = roofline.tokens(shape, height, width, spec.stride)
        for inputs, outputs in ((1, 3), (1, 1)):
            found.append((inputs * shape.dim, outputs * shape.dim, tokens))
        found += [(shape.dim, shape.ffn, tokens), (shape.ffn, shape.dim, tokens)]
    return found


class Rows:
    """Collects the rows of one part; a row that fails is reported and added to `failed`."""

    def __init__(self, part: str, failed: list[str]) -> None:
        self.part, self._failed = part, failed
        self.rows: list[dict[str, Any]] = []

    def add(self, settings: dict[str, Any], work: Callable[[], dict[str, Any] | list[dict[str, Any]]]) -> None:
        """Run `work` and store the rows that it returns, each preceded by `settings`."""
        print(f"{self.part}: {' '.join(f'{k}={v}' for k, v in settings.items())}", flush=True)
        try:
            found = work()
            rows = found if isinstance(found, list) else [found]
            for row in rows:
                if row.get("trouble"):
                    self._note(settings, row["trouble"])
            self.rows += [settings | row for row in rows]
        except (TidecastError, RuntimeError, AssertionError) as error:  # RuntimeError: errors of the device
            traceback.print_exc()
            self._note(settings, str(error))
            self.rows.append(settings | {"failed": type(error).__name__})
        torch.compiler.reset()  # the next row has other shapes, and code compiled for both would be slower
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _note(self, settings: dict[str, Any], message: str) -> None:
        self._failed.append(f"{self.part} {settings}: {message.splitlines()[0] if message else 'no message'}")


def main() -> None:
    """Run the parts of the command line; print the table and the JSON of each."""
    parser = argparse.ArgumentParser(description="Check and benchmark the engine on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default="check,waits,float8,engine,versus")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--models", default="", help="default wan21-1.3b,wan21-14b; on a CPU wan21-tiny")
    parser.add_argument("--sizes", default="", help=f"default {SIZES}; on a CPU 64x64")
    parser.add_argument("--vaes", default="full,tiny")
    parser.add_argument("--steps", default="1,2")
    parser.add_argument("--chunks", type=int, default=0, help="chunks per run (default 30; on a CPU 3)")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    device, dtype = torch.device(args.device), torch.bfloat16
    small = device.type == "cpu"
    side = 32 if small else 96
    models = (args.models or ("wan21-tiny" if small else "wan21-1.3b,wan21-14b")).split(",")
    given = (args.sizes or ("64x64" if small else SIZES)).split(",")
    sizes = [(int(width), int(height)) for width, height in (size.split("x") for size in given)]
    chunks = args.chunks or (3 if small else 30)
    steps = [int(count) for count in args.steps.split(",")]
    modes, parts = args.modes.split(","), args.parts.split(",")
    failed: list[str] = []
    known = {"check", "waits", "float8", "engine", "versus"}
    if unknown := [name for name in parts if name not in known] + [name for name in modes if name not in MODES]:
        parser.error(f"there is no {', '.join(unknown)}; parts: {', '.join(sorted(known))}; modes: {', '.join(MODES)}")

    for part in parts:
        rows = Rows(part, failed)
        if part == "check":
            columns = CHECK_COLUMNS
            for mode in modes:
                for count in (1, 2, 4):
                    rows.add({"mode": mode, "steps": count}, partial(check, device, dtype, mode, count, side))
        elif part == "waits":
            columns = WAITS_COLUMNS
            for count in (1, 2, 4):
                rows.add({"steps": count}, partial(waits, device, dtype, count, side))
        elif part == "float8":
            columns = FLOAT8_COLUMNS
            for inputs, outputs, tokens in matmuls(models, *sizes[0]):
                rows.add({"layer": f"{inputs} to {outputs}"}, partial(float8, device, dtype, inputs, outputs, tokens))
        elif part == "engine":
            columns = ENGINE_COLUMNS
            for model, (width, height), vae, mode in product(models, sizes, args.vaes.split(","), modes):
                settings = {"model": model, "width": width, "height": height, "vae": vae}
                config = Config(device=args.device, **settings, **MODES[mode])
                asks = [Ask(count, chunks, input_fps=30.0) for count in steps]
                rows.add({"mode": mode} | settings, partial(measure, config, asks))
        elif not installed():
            print(
                "versus: skipped, since the published implementation is not installed (see engine/bench/reference.py)"
            )
            continue
        else:
            columns = versus.COLUMNS
            for case in versus.CPU_CASES[:2] if small else versus.GPU_CASES:
                rows.add({"case": case.name}, partial(versus.run, case, device, torch.float32 if small else dtype))
        path = args.json.with_suffix(f".{part}.json") if args.json else None
        report.show(f"{part} on {device}", rows.rows, columns, path=path)
    if failed:
        print("FAILED:\n  " + "\n  ".join(failed))
        sys.exit(1)


if __name__ == "__main__":
    main()
