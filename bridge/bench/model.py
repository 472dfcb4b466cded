"""`tidecast bench engine | pipeline | card | slo | compare`: a model, a card, the schedule on simulated machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.size import parse_size
from engine.errors import ConfigError

Model = Annotated[str, typer.Option(help="A model of `tidecast models list`.")]
Sizes = Annotated[list[str], typer.Option("--size", help="Width x height; may be given several times.")]
Steps = Annotated[str, typer.Option(help="Denoising steps, separated by commas.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def parse_steps(text: str) -> list[int]:
    """Read "1,2" as numbers of steps.

    Raises:
        ConfigError: if one is not from 1 to 4.
    """
    steps = [part.strip() for part in text.split(",")]
    if not steps or any(part not in ("1", "2", "3", "4") for part in steps):
        raise ConfigError(f"{text!r} is not a list of step counts.", "Write numbers from 1 to 4, for example 1,2.")
    return [int(part) for part in steps]


def engine(
    model: Model = "ember",
    size: Sizes = ["256x256"],  # noqa: B006 - typer copies it
    steps: Steps = "1,2",
    chunks: Annotated[int, typer.Option(min=4, max=10_000, help="Chunks of four frames a run.")] = 40,
    fps: Annotated[float, typer.Option(min=0, max=240, help="Input rate of the real-time run; 0: no such run.")] = 30.0,
    latency: Annotated[float, typer.Option(min=50, max=2000, help="Latency target, ms.")] = 400.0,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    vae: Annotated[str, typer.Option(help="auto, full or tiny.")] = "auto",
    batch: Annotated[bool, typer.Option(help="Batch the steps of successive chunks into one forward pass.")] = True,
    threads: Annotated[int, typer.Option(min=0, max=256, help="CPU threads; 0 leaves the choice to torch.")] = 0,
    mask: Annotated[float, typer.Option(min=0, max=240, help="Person masks a second meanwhile; 0: none.")] = 0.0,
    json: Json = None,
) -> None:
    """Time a model from uint8 frame to uint8 frame, and compare it with the limit of the device."""
    from engine.bench import report
    from engine.bench.engine import COLUMNS, MASK_COLUMNS, Ask, measure
    from engine.config import Config

    rows = []
    for text in size:
        width, height = parse_size(text)
        config = Config.model_validate(
            {
                "model": model,
                "width": width,
                "height": height,
                "device": device,
                "dtype": dtype,
                "vae": vae,
                "batch": batch,
                "threads": threads,
            }
        )
        rows += measure(config, [Ask(n, chunks, fps, latency / 1e3, mask_fps=mask) for n in parse_steps(steps)])
    report.show(f"engine: {model}", rows, COLUMNS | (MASK_COLUMNS if mask else {}), path=json)


def pipeline(
    devices: Annotated[str, typer.Option(help="Devices in pipeline order, separated by commas.")] = "cpu,cpu",
    model: Model = "wan21-tiny",
    size: Annotated[str, typer.Option(help="Width x height.")] = "128x128",
    steps: Annotated[int, typer.Option(min=1, max=4, help="Denoising steps.")] = 2,
    chunks: Annotated[int, typer.Option(min=4, max=10_000, help="Chunks of four frames a run.")] = 40,
    threads: Annotated[int, typer.Option(min=0, max=256, help="CPU threads of every rank.")] = 1,
    json: Json = None,
) -> None:
    """Compare several devices with one, in speed and pictures; weights are random."""
    from engine.bench import report
    from engine.bench.pipeline import COLUMNS, measure
    from engine.config import Config

    width, height = parse_size(size)
    config = Config(model=model, width=width, height=height, threads=threads)
    rows = measure(config, [part.strip() for part in devices.split(",")], steps, chunks)
    report.show(f"pipeline: {devices}", rows, COLUMNS, path=json)


def card(
    out: Annotated[Path, typer.Option(help="File for everything that is measured, written as it comes.")] = Path(
        "card.jsonl"
    ),
    device: Annotated[str, typer.Option(help="cuda or cuda:N; cpu tests the run itself.")] = "cuda",
    minutes: Annotated[
        float, typer.Option(min=1, max=240, help="How long it may last. Above 15, each part may last longer, too.")
    ] = 15.0,
) -> None:
    """Check and measure everything on an NVIDIA card, in about a quarter of an hour; send the file that it writes."""
    from engine.bench import report
    from engine.bench.card import ON_CPU, ON_GPU, run

    verdicts = run(out, device, ON_CPU if device == "cpu" else ON_GPU, limit_s=60 * minutes)
    lines = [list(row.values()) for row in verdicts]
    report.say(f"card: {device}", lines, verdicts, headings=("", "fault", "verdict", "evidence"))
    print(f"Everything is in {out}. Attach this file to an issue.")


def slo() -> None:
    """Show how the schedule affects deadline misses, on simulated machines."""
    from engine.planning.simulate import main

    main()


def compare(before: Path, after: Path) -> None:
    """Compare two files written with --json: every figure that both have, and the ratio."""
    from engine.bench.report import compare as compare_files

    compare_files(before, after)
