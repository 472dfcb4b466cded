r"""Single checks and benchmarks of the engine on a GPU. `tidecast bench card` runs them all, in an order that pays.

    tidecast bench card --out card.jsonl                               everything that a card can tell
    python -m engine.bench.gpu --parts check,engine --models wan21-1.3b
    python -m engine.bench.gpu --device cpu                            tests the script, with tiny shapes

For a GPU machine without a network, download the libraries elsewhere (first command) and install them there (second):

    names="einops numpy pillow platformdirs psutil pydantic rich safetensors"
    python -m pip download -d wheels --only-binary=:all: --python-version 3.12 \
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 $names
    python -m pip install --no-index --find-links wheels $names

Parts:

* `machine` names the device and its memory.
* `check` compares a tiny model on the device in bf16 with the CPU in fp32, for every mode, with the same noise.
* `waits` runs a captured stream in which the host must never wait for the device.
* `float8` measures the time and error of 8-bit matmuls at the widths of the models.
* `engine` measures the models with random weights, one row per mode.
* `kernels` lists the dearest kernels of one chunk.
* `beside` measures how much an upload of weights, as for a new prompt, delays other work.
* `capture` lets a capture fail and watches the memory afterwards.
* `versus` measures the published implementation too, if it is installed.

A row that fails is reported and the next one runs; the exit status is 1 if any row failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from engine.bench import gpu_parts, report, versus
from engine.bench.engine import Ask, measure
from engine.bench.gpu_check import MODES, check, waits
from engine.bench.reference import installed
from engine.config import Config
from engine.errors import TidecastError

SIZES = "512x512,832x480"
"""Picture sizes of the published figures, WIDTHxHEIGHT."""

PARTS = ("machine", "check", "waits", "float8", "engine", "kernels", "beside", "capture", "versus")

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
MACHINE_COLUMNS = {name: name for name in ("device", "gpu", "capability", "torch", "cuda", "free_gib", "failed")}
KERNEL_COLUMNS = {name: name for name in ("stage", "kernel", "calls", "short", "ms", "failed")}
BESIDE_COLUMNS = {name: name for name in ("mib", "alone_ms", "beside_ms", "upload_ms", "failed")}
CAPTURE_COLUMNS = {name: name for name in ("error", "chunks", "before_mib", "after_mib", "grew_mib", "failed")}


class Rows:
    """Collects the rows of one part; a row that fails is reported and added to `failed`.

    Args:
        part: its name.
        failed: reports of failures.
        lines: file to which every row is appended as soon as it is there, as a line of JSON; None for none.
    """

    def __init__(self, part: str, failed: list[str], lines: Path | None = None) -> None:
        self.part, self._failed, self._lines = part, failed, lines
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
            self._add(settings | row for row in rows)
        except (TidecastError, RuntimeError, AssertionError) as error:  # RuntimeError: errors of the device
            traceback.print_exc()
            self._note(settings, str(error))
            self._add([settings | {"failed": type(error).__name__, "message": str(error)[:1000]}])
        torch.compiler.reset()  # the next row has other shapes, and code compiled for both would be slower
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _add(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            self.rows.append(row)
            if self._lines is not None:
                with self._lines.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"part": self.part, "row": row}, default=str) + "\n")

    def _note(self, settings: dict[str, Any], message: str) -> None:
        self._failed.append(f"{self.part} {settings}: {message.splitlines()[0] if message else 'no message'}")


def main() -> None:
    """Run the parts of the command line; print the table and the JSON of each."""
    parser = argparse.ArgumentParser(description="Check and benchmark the engine on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default="machine,check,waits", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--modes", default="eager,graphs", help=f"of {', '.join(MODES)}")
    parser.add_argument("--models", default="", help="default wan21-1.3b,wan21-14b; on a CPU wan21-tiny")
    parser.add_argument("--sizes", default="", help=f"default {SIZES}; on a CPU 64x64")
    parser.add_argument("--vaes", default="full,tiny")
    parser.add_argument("--steps", default="1,2")
    parser.add_argument("--counts", default="1,2,4", help="denoising steps for check and waits")
    parser.add_argument("--chunks", type=int, default=0, help="chunks per run (default 30; on a CPU 3)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--lines", type=Path, default=None, help="file to which each row is appended at once")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device, dtype = torch.device(args.device), torch.bfloat16
    small = device.type == "cpu"
    side = 32 if small else 96
    models = (args.models or ("wan21-tiny" if small else "wan21-1.3b,wan21-14b")).split(",")
    given = (args.sizes or ("64x64" if small else SIZES)).split(",")
    sizes = [(int(width), int(height)) for width, height in (size.split("x") for size in given)]
    chunks = args.chunks or (3 if small else 30)
    steps, counts = ([int(count) for count in text.split(",")] for text in (args.steps, args.counts))
    modes, parts, vaes = args.modes.split(","), args.parts.split(","), args.vaes.split(",")
    failed: list[str] = []
    if unknown := [name for name in parts if name not in PARTS] + [name for name in modes if name not in MODES]:
        parser.error(f"there is no {', '.join(unknown)}; parts: {', '.join(PARTS)}; modes: {', '.join(MODES)}")

    for part in parts:
        rows = Rows(part, failed, args.lines)
        if part == "machine":
            columns = MACHINE_COLUMNS
            rows.add({}, partial(gpu_parts.machine, device))
        elif part == "check":
            columns = CHECK_COLUMNS
            for mode in modes:
                for count in counts:
                    rows.add({"mode": mode, "steps": count}, partial(check, device, dtype, mode, count, side, vaes[0]))
        elif part == "waits":
            columns = WAITS_COLUMNS
            for count in counts:
                rows.add({"steps": count}, partial(waits, device, dtype, count, side, vaes[0]))
        elif part == "float8":
            columns = FLOAT8_COLUMNS
            for inputs, outputs, tokens in gpu_parts.matmuls(models, *sizes[0]):
                rows.add(
                    {"layer": f"{inputs} to {outputs}"},
                    partial(gpu_parts.float8, device, dtype, inputs, outputs, tokens),
                )
        elif part == "engine":
            columns = ENGINE_COLUMNS
            for model, (width, height), vae, mode in product(models, sizes, vaes, modes):
                settings = {"model": model, "width": width, "height": height, "vae": vae}
                config = Config(device=args.device, max_steps=max(steps), **settings, **MODES[mode])
                asks = [Ask(count, chunks, input_fps=30.0) for count in steps]
                rows.add({"mode": mode} | settings, partial(measure, config, asks))
        elif part == "kernels":
            columns = KERNEL_COLUMNS
            (width, height), vae = sizes[0], vaes[0]
            settings = {"model": models[0], "width": width, "height": height, "vae": vae}
            config = Config(device=args.device, max_steps=max(steps), **settings)  # on a GPU, graphs are replayed
            rows.add(settings, partial(gpu_parts.kernels, config, max(steps)))
        elif part == "beside":
            columns = BESIDE_COLUMNS
            amounts = (16, 256, 20) if small else (386, 4096, 200)
            rows.add({}, partial(gpu_parts.beside, device, *amounts))
        elif part == "capture":
            columns = CAPTURE_COLUMNS
            rows.add({}, partial(gpu_parts.after_failed_capture, device, 10 if small else 200))
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
