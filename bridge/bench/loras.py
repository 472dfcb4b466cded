"""`tidecast bench loras`: a stream whose faders move, and the merge at the true sizes of Wan's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.size import parse_size

Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]


def loras(
    model: Annotated[str, typer.Option(help="A model of `tidecast models list`.")] = "wan21-tiny",
    size: Annotated[str, typer.Option(help="Width x height.")] = "128x128",
    count: Annotated[int, typer.Option(min=1, max=8, help="LoRAs on faders.")] = 8,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of each.")] = 8,
    stretches: Annotated[int, typer.Option(min=1, max=1000, help="Stretches of 8 chunks, swept and still each.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, max=256, help="CPU threads; 0 leaves the choice to torch.")] = 0,
    merge: Annotated[
        bool, typer.Option(help="Instead time one merge at the true sizes of Wan 1.3B, and count that of 14B.")
    ] = False,
    json: Json = None,
) -> None:
    """Sweep all LoRA faders at 60 Hz: chunk times still and swept, blocks merged, memory, addresses."""
    import torch

    from engine.bench import report
    from engine.bench.loras import merge as merges
    from engine.bench.loras import sweep
    from engine.config import Config
    from engine.models.wan21.specs import DIT_1_3B, DIT_14B
    from engine.runtime.device import device_for

    if threads:
        torch.set_num_threads(threads)
    if merge:
        place = device_for(device)
        rows = [merges.measure("Wan 1.3B", DIT_1_3B, each, place) for each in (16, 32, 128)]
        rows += [{"network": "Wan 14B", "rank": each, **merges.arithmetic(DIT_14B, each)} for each in (16, 32, 128)]
        report.show(f"a merge, bfloat16, {place}", rows, merges.COLUMNS, path=json)
        return
    width, height = parse_size(size)
    config = Config(model=model, width=width, height=height, device=device, threads=threads)
    row = sweep.measure(config, loras=count, rank=rank, stretches=stretches)
    report.show(f"LoRAs on faders: {model}", [row], sweep.COLUMNS, path=json)
