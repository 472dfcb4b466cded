"""Correctness of the engine on a GPU: a tiny model on the device against the CPU, and waits of the host.

`check` compares a tiny model on the device in bf16 with the CPU in fp32, for every mode (eager, captured, compiled,
8-bit weights), with the same noise. `waits` runs a captured stream in which the host must never wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from engine.errors import ModelError
from engine.models import registry
from engine.network.dit import CausalDiT
from engine.runtime import graph_capture, quantise
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

MODES: dict[str, dict[str, Any]] = {
    "eager": {"compile": "off"},
    "graphs": {"compile": "graphs"},
    "full": {"compile": "full"},
    "fp8": {"compile": "graphs", "weights_dtype": "float8"},
    "full-fp8": {"compile": "full", "weights_dtype": "float8"},
}
"""Ways to run a model, and the settings of `Config` that select them."""

RELATIVE_RMS = {"eager": 0.05, "graphs": 0.05, "full": 0.05, "fp8": 0.2, "full-fp8": 0.2}
"""Largest allowed error of latents against fp32, as RMS error over RMS (the reference in bf16: 0.007 to 0.03)."""

PSNR_DB = {"eager": 40.0, "graphs": 40.0, "full": 40.0, "fp8": 28.0, "full-fp8": 28.0}
"""Smallest allowed PSNR in dB of pixels against fp32 (the reference in bf16: 47 to 55 dB)."""


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


def waits(
    device: torch.device, dtype: torch.dtype, steps: int, size: int, vae: str = "full", chunks: int = 6
) -> dict[str, Any]:
    """Run a captured stream while torch raises an error for every wait for the device. (On a CPU there are none.)

    Raises:
        ModelError: if the capture failed.
        RuntimeError: if the host waited.
    """
    stream = tiny_stream(device, dtype, steps, "graphs", size, vae)
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
