"""Measurements on a GPU: 8-bit matmuls, the dearest kernels, uploads beside the video, a failed capture."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from engine.bench.engine import median_seconds
from engine.config import Config
from engine.errors import CaptureError
from engine.models import registry
from engine.network.dit_shape import dit_shape
from engine.opening import opened
from engine.planning import roofline
from engine.runtime import graph_capture, quantise
from engine.runtime.graph_checker import GraphChecker
from engine.runtime.transfers import PiecewiseUpload, side_stream, staging, transfers
from engine.stream.timesteps import steps_for

DEAREST = 30
"""Kernels of a stage that the profile lists."""


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


def machine(device: torch.device) -> dict[str, Any]:
    """The device and its memory in GiB.

    Raises:
        RuntimeError: if torch finds no such device.
    """
    torch.ones(1, device=device)
    found: dict[str, Any] = {"device": str(device), "torch": torch.__version__, "cuda": torch.version.cuda or ""}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        gpu = torch.cuda.get_device_properties(device)
        found |= {"gpu": gpu.name, "capability": f"{gpu.major}.{gpu.minor}", "gpus": torch.cuda.device_count()}
        found |= {"free_gib": free / 2**30, "total_gib": total / 2**30}
    return found


def kernels(config: Config, steps: int) -> list[dict[str, Any]]:
    """Profile one chunk's encode, denoise and decode, and list the kernels of each that take longest.

    On a GPU the chunk is one of those that replay CUDA graphs, as on stage. So the profiler is started once before they
    are captured, and its library (CUPTI) stays loaded: torch knows of crashes when it is loaded again.

    A stage's first row ("all") has its totals: kernels that ran, those of less than 5 us, and their time.
    """
    on_gpu = torch.device(config.device).type == "cuda"
    os.environ |= {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}
    with _profiled([], "start", on_gpu):
        torch.ones(1, device=config.device)
    model = opened(config, say=lambda _: None, defer_prompts=False, files={})
    stream, schedule = model.stream, model.spec.schedule
    wanted = steps_for(schedule, schedule.strength, steps)
    shape = model.spec.network
    stream.set_prompt(torch.zeros(shape.text_len, shape.text_dim, device=stream.device))
    later = model.spec.frames_per_latent * model.spec.frames_per_block
    rows: list[dict[str, Any]] = []
    for chunk in range(model.spec.cache.slots + 4):
        frames = later if stream.begun else model.spec.first_frames
        video = torch.rand(3, frames, config.height, config.width).to(stream.device, stream.dtype)
        last = chunk == model.spec.cache.slots + 3
        with _profiled(rows if last else None, "encode", on_gpu):
            noisy, first = stream.encode(video, wanted)
        with _profiled(rows if last else None, "forward", on_gpu):
            done = list(stream.denoise(noisy, first, wanted.timesteps, chunk))
        with _profiled(rows if last else None, "decode", on_gpu):
            for _, clean in done:
                stream.decode(clean)
    stream.close()
    return rows


class _profiled:
    """Profiles what runs in the context and adds its kernels to `rows`; does nothing if `rows` is None."""

    def __init__(self, rows: list[dict[str, Any]] | None, stage: str, on_gpu: bool) -> None:
        self._rows, self._stage, self._on_gpu = rows, stage, on_gpu
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        self._profile = profile(activities=activities) if rows is not None else None

    def __enter__(self) -> None:
        if self._profile is not None:
            self._profile.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._profile is None or self._rows is None:
            return
        if self._on_gpu:
            torch.cuda.synchronize()
        self._profile.__exit__(*error)
        found = [
            (event.key, event.count, event.self_device_time_total if self._on_gpu else event.self_cpu_time_total)
            for event in self._profile.key_averages()
        ]
        found = sorted((row for row in found if row[2] > 0), key=lambda row: -row[2])
        self._rows.append(
            {
                "stage": self._stage,
                "kernel": "all",
                "calls": sum(calls for _, calls, _ in found),
                "short": sum(calls for _, calls, us in found if us < 5 * calls),
                "ms": sum(us for _, _, us in found) / 1e3,
            }
        )
        for name, calls, us in found[:DEAREST]:
            self._rows.append({"stage": self._stage, "kernel": name[:120], "calls": calls, "ms": us / 1e3})


def beside(device: torch.device, mib: int, side: int, rounds: int) -> dict[str, Any]:
    """How much an upload of weights in the side stream, as for a new prompt, delays work in the video's stream.

    Args:
        device: the device.
        mib: size of the weights, MiB.
        side: the work is a matmul of side x side matrices.
        rounds: matmuls that are timed, without and with the upload.

    Returns:
        The longest matmul in ms without and with it, and how long the upload took.
    """
    a = torch.randn(side, side, device=device)
    weights = torch.ones(mib << 20, dtype=torch.uint8)
    stream, took = side_stream(device), [0.0]
    median_seconds(lambda: a @ a, device)

    def upload() -> None:
        started = time.perf_counter()
        with stream.active():
            target = torch.empty_like(weights, device=device)
            PiecewiseUpload(stream).send(weights, target)
            stream.mark().synchronize()
        took[0] = time.perf_counter() - started

    def longest() -> float:
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            b = a @ a
            if device.type == "cuda":
                event = torch.cuda.Event()
                event.record()
                event.synchronize()  # this stream only; the side stream goes on
            del b
            times.append(time.perf_counter() - started)
        return max(times) * 1e3

    alone = longest()
    thread = threading.Thread(target=upload)
    thread.start()
    with_upload = longest()
    thread.join()
    return {"mib": mib, "alone_ms": alone, "beside_ms": with_upload, "upload_ms": took[0] * 1e3}


def after_failed_capture(device: torch.device, chunks: int) -> dict[str, Any]:
    """Let a capture fail, then copy as the stream does, and see whether the memory of copies is freed again.

    Returns:
        The capture's error, and the reserved memory before and after `chunks` uploads, MiB.
    """
    backend = graph_capture.CudaGraphs(device) if device.type == "cuda" else GraphChecker()
    error = ""
    try:
        backend.capture(lambda: torch.ones(4, device=device) * torch.ones(4, device=device).sum().item())
    except (RuntimeError, CaptureError) as raised:
        error = str(raised).splitlines()[0]
    up, _ = transfers(device)
    source = staging((10 << 20,), device)

    def copied(count: int) -> float:
        for _ in range(count):
            up.send(source).wait().sum()
        if device.type != "cuda":
            return 0.0
        torch.cuda.synchronize(device)
        return torch.cuda.memory_reserved(device) / 2**20

    before = copied(5)
    after = copied(chunks)
    return {"error": error, "chunks": chunks, "before_mib": before, "after_mib": after, "grew_mib": after - before}
