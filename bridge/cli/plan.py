"""`tidecast plan`: a forecast of frame rate and latency for GPUs that are not at hand, and what limits them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from bridge.cli.size import parse_size
from bridge.cli.terminal import PrintableConsole
from engine.config import Config, LoraConfig
from engine.errors import ConfigError
from engine.models.registry import get
from engine.models.spec import ModelSpec
from engine.models.vram import need_of, what_fits
from engine.network.dit_shape import dit_shape
from engine.planning.predict import BLOCKS, CHUNK, GPUS, Forecast, Gpu, StageTimes, alone, forecast, published_times
from engine.planning.roofline import (
    TINY_VAE_SHARE,
    dit_flops,
    dit_parameters,
    tokens,
    vae_decode_flops,
    vae_encode_flops,
)
from engine.planning.simulate import Machine, Show, simulate, steady
from engine.planning.vram import GIB
from engine.schedule import Goal

STEPS = 2
"""Denoising steps for which memory is computed."""


def parse_gpus(text: str) -> list[Gpu]:
    """Read "2xRTX4090" or "H100,RTX4090" as GPUs in pipeline order.

    Raises:
        ConfigError: if a name is not in the table, or there are none or more than 16.
    """
    result: list[Gpu] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        found = re.fullmatch(r"(?:(\d{1,2})\s*x\s*)?(.+)", part, re.IGNORECASE)
        assert found is not None
        name = found[2].upper().replace(" ", "").replace("-", "")
        if name not in GPUS:
            raise ConfigError(f"{found[2]!r} is not a known GPU.", "Known are: " + ", ".join(GPUS) + ".")
        result += [GPUS[name]] * int(found[1] or 1)
    if not 1 <= len(result) <= 16:
        raise ConfigError(f"{text!r} names {len(result)} GPUs.", 'Name 1 to 16, for example "2xRTX4090".')
    return result


def limit_times(spec: ModelSpec, width: int, height: int, gpu: Gpu, *, tiny: bool) -> StageTimes:
    """Stage times of a chunk at the roofline, which no code can beat on this GPU."""
    length, frames = tokens(dit_shape(spec.network), height, width, spec.stride), spec.frames_per_block
    share = TINY_VAE_SHARE if tiny else 1.0
    ceiling = gpu.ceiling
    row = dit_flops(dit_shape(spec.network), frames * length, length * spec.cache.slots)
    weights = 2 * dit_parameters(dit_shape(spec.network))
    one = ceiling.seconds(row, weights)
    return StageTimes(
        ceiling.seconds(frames * share * vae_encode_flops(height, width)),
        ceiling.seconds(frames * share * vae_decode_flops(height, width)),
        max(0.0, one - row / ceiling.flops),
        row / ceiling.flops,
        "limit",
    )


def measured_times(path: Path, model: str, width: int, height: int, *, clean_pass: bool = False) -> StageTimes:
    """Stage times from the JSON file of `tidecast bench engine` on one GPU (the rows of this model and size).

    With a clean pass, n steps are n forwards with n + 1 rows (`roofline.chunk_forwards`).

    Raises:
        ConfigError: if the file has no such rows.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        fitting = [r for r in rows if (r["model"], r["width"], r["height"]) == (model, width, height)]
        stages = {int(r["steps"]): r["stages_ms"] for r in fitting}
        first, last = stages[min(stages)], stages[max(stages)]
        spread = max(stages) - min(stages)
        more = (last["dit"] - first["dit"]) / spread if spread else 0.5 * first["dit"] / min(stages)
        rest = first["dit"] - more * min(stages)
        row, call = (rest, more - rest) if clean_pass else (more, rest)
        encode, decode = first["encode"], first["decode"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} holds no stage times of {model} at {width}x{height} ({error!r}).",
            "Make it with: tidecast bench engine --json FILE.",
        ) from None
    return StageTimes(encode / 1e3, decode / 1e3, max(0.0, call) / 1e3, row / 1e3, "measured")


def outlook(spec: ModelSpec, times: list[StageTimes], steps: int, fps: float) -> Forecast:
    """The forecast of a model at a number of steps; `times` has an entry for each GPU."""
    if spec.schedule.clean_pass:
        return alone(times[0], spec.network.layers, steps, clean_pass=True, chunk=chunk_of(spec), input_fps=fps)
    return forecast(times, spec.network.layers, steps, input_fps=fps)


def chunk_of(spec: ModelSpec) -> int:
    """Pixel frames of a chunk."""
    return spec.frames_per_latent * spec.frames_per_block


def misses(spec: ModelSpec, slow: Forecast, fast: Forecast, steps: int, input_fps: float, latency_s: float) -> float:
    """Share of missed deadlines in a simulated minute, with the schedule in use."""
    if spec.schedule.clean_pass:
        chunk = chunk_of(spec)
        goal = Goal(steps, latency_s, frames_per_latent=chunk, batch=False, extra_forwards=spec.extra_forwards)
        forward_s = chunk / slow.fps / (steps + spec.extra_forwards)
        show = Show("", steady(input_fps, 60), Machine(0.0, 0.0, forward_s), goal)
        return simulate(show, with_policy=True).missed
    one, many = CHUNK / fast.fps, CHUNK / slow.fps
    row = (many - one) / (steps - 1) if steps > 1 else 0.0
    show = Show("", steady(input_fps, 60), Machine(one - row, 0.0, row), Goal(steps, latency_s))
    return simulate(show, with_policy=True).missed


def plan(
    gpus: Annotated[str, typer.Option(help='GPUs in pipeline order, for example "2xRTX4090" or "H100,RTX4090".')],
    model: Annotated[str, typer.Option(help="A model of `tidecast models list`.")] = "wan21-1.3b",
    size: Annotated[str, typer.Option(help="Width x height in pixels.")] = "512x512",
    fps: Annotated[float, typer.Option(min=1, max=240, help="Rate of the input.")] = 30.0,
    latency: Annotated[float, typer.Option(min=50, max=2000, help="Latency target, ms.")] = 400.0,
    measured: Annotated[Path | None, typer.Option(help="JSON of `tidecast bench engine` from one such GPU.")] = None,
    tiny: Annotated[bool, typer.Option(help="Compute the limit for the tiny VAE instead of the full one.")] = False,
    lora: Annotated[
        list[Path] | None, typer.Option(help="A LoRA on a fader, for the memory; may be given several times.")
    ] = None,
) -> None:
    """Forecast frame rate and latency on GPUs that are not at hand, and what limits them."""
    chosen, (width, height), spec = parse_gpus(gpus), parse_size(size), get(model)
    if len(chosen) > 1 and not spec.batches:
        raise ConfigError(
            f"{spec.title} runs on one GPU: each step needs the finished history of the chunk before.", "Name one GPU."
        )
    console = PrintableConsole()
    bases = [[limit_times(spec, width, height, gpu, tiny=tiny) for gpu in chosen]]
    if measured is not None:
        clean_pass = spec.schedule.clean_pass
        bases.insert(0, [measured_times(measured, spec.name, width, height, clean_pass=clean_pass)] * len(chosen))
    elif spec.name in BLOCKS:
        bases.insert(0, [published_times(spec.name, height, width, gpu) for gpu in chosen])
    table = Table(title=f"{spec.name} at {width}x{height} on {' + '.join(g.name for g in chosen)}, input {fps:g} fps")
    for heading in ("basis", "steps", "FPS", "latency ms", f"later than {latency:.0f} ms", "blocks", "bounded by"):
        table.add_column(heading)
    for times in bases:
        fastest = outlook(spec, times, 1, fps)
        for steps in range(1, min(4, spec.most_steps) + 1):
            got = outlook(spec, times, steps, fps)
            table.add_row(
                times[0].source,
                str(steps),
                f"{got.fps:.1f}",
                f"{got.latency_s * 1000:.0f}",
                f"{misses(spec, got, fastest, steps, fps, latency / 1000):.0%}",
                " ".join(str(end - start) for start, end in got.placement.split),
                got.bottleneck,
            )
    console.print(table)
    devices = tuple(f"cuda:{n}" for n in range(len(chosen))) if len(chosen) > 1 else ()
    vae: Literal["tiny", "auto"] = "tiny" if tiny else "auto"
    loras = tuple(LoraConfig(file=str(path)) for path in lora or ())
    config = Config(model=spec.name, width=width, height=height, vae=vae, max_steps=STEPS, devices=devices, loras=loras)
    _explain(console, spec, chosen, config, {times[0].source for times in bases})


def _explain(console: Console, spec: ModelSpec, gpus: list[Gpu], config: Config, sources: set[str]) -> None:
    texts = {
        "published": "published: stage times of the paper's implementation, fitted to its single-GPU figures.",
        "scaled": "scaled: the paper's stage times, scaled by the ratio of the datasheets' rates; a guess.",
        "measured": "measured: stage times from your file.",
        "limit": "limit: the arithmetic at 80 % of the datasheet's rate; no code can beat it.",
    }
    for source in sorted(sources):
        console.print("- " + texts[source], highlight=False)
    if needed := need_of(spec, config):
        least = min(gpu.gib for gpu in gpus)
        verdict = "fits" if needed.gib <= least else f"does not fit. {what_fits(spec, config, least * GIB)}"
        each = f" on each of {len(gpus)}" if len(gpus) > 1 else ""
        console.print(
            f"- memory at {STEPS} steps: {needed}{each}; the smallest GPU has {least:g} GiB: {verdict}", highlight=False
        )
