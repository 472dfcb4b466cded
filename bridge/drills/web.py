"""`tidecast bench web`: what open pages cost the output, in frames and latency.

The bridge runs here with the identity engine and a test picture. The pages run in a process of their own, which takes
both previews as fast as they come and acknowledges each picture, as a browser does. Phases with and without pages
alternate, so that a slow drift of the machine affects both alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Annotated

import typer

from bridge.app import App
from bridge.cli.size import parse_size
from bridge.config_file import load
from bridge.drills.viewers import open_pages
from bridge.pipeline.pacing.latency import WINDOW_NS
from engine.bench.report import say

SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Phase:
    """What was measured in one phase.

    Attributes:
        due, sent: output frames that the rate asks for, and that were sent.
        shown: new frames per second.
        p50_ms, p95_ms: latency from capture to send.
        gap_ms: longest time between two output frames.
        pictures: preview pictures per second that each page drew, both kinds together.
    """

    due: int
    sent: int
    shown: float
    p50_ms: float
    p95_ms: float
    gap_ms: float
    pictures: float


def measure(app: App, seconds: float, pages: int) -> Phase:
    """Run one phase of `seconds`, with that many pages open."""
    assert app.web is not None
    url = app.web.url.replace("http", "ws", 1) + "api/preview"
    with open_pages(url, pages) if pages else contextlib.nullcontext(lambda: 0) as count:
        while pages and app.web.watched != {"output", "input"}:
            time.sleep(0.05)
        time.sleep(SETTLE_S)
        publisher = app.publisher
        count()
        sent, shown, begin = publisher.main.sent, publisher.pacer.latency.count, time.monotonic()
        publisher.main.longest_gap_ms = 0.0
        time.sleep(seconds)
        elapsed = time.monotonic() - begin
        sent, shown = publisher.main.sent - sent, publisher.pacer.latency.count - shown
        p50, p95, _ = publisher.pacer.latency.quantiles_ms()
        pictures = count() / elapsed / max(1, pages)
    return Phase(
        round(elapsed * app.config.output.fps), sent, shown / elapsed, p50, p95, publisher.main.longest_gap_ms, pictures
    )


def bench(pages: int, seconds: float, rounds: int, width: int, height: int, fps: float) -> dict[int, list[Phase]]:
    """Measure `rounds` phases without and with pages by turns; returns the phases by number of pages."""
    with tempfile.TemporaryDirectory() as folder:
        config = load(
            None,
            {
                "process.kind": "identity",
                "input.uri": "pattern:counter",
                "output.uri": "null:",
                "output.fps": fps,
                "osc.enabled": False,
                "web.port": 0,
                "web.announce": False,
                "storage.state_dir": folder,
                "engine.width": width,
                "engine.height": height,
            },
        )
        phases: dict[int, list[Phase]] = {0: [], pages: []}
        with App(config) as app:
            while app.telemetry.snapshot().get("state") != "running":
                time.sleep(0.1)
            for _ in range(rounds):
                for number, measured in phases.items():
                    measured.append(measure(app, max(seconds, WINDOW_NS / 1e9), number))
    return phases


def web(
    pages: Annotated[int, typer.Option(min=1, max=16, help="Number of pages.")] = 3,
    seconds: Annotated[float, typer.Option(min=4.0, help="Length of a phase.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Phases of each kind.")] = 3,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the picture.")] = "512x512",
    fps: Annotated[float, typer.Option(min=1.0, help="Output rate.")] = 30.0,
) -> None:
    """What open pages cost the output: its frames and latency, without and with pages by turns."""
    width, height = parse_size(size)
    phases = bench(pages, seconds, rounds, width, height, fps)
    names = [field.name for field in dataclasses.fields(Phase)]
    figures = {
        str(number): {name: round(statistics.median(getattr(p, name) for p in measured), 2) for name in names}
        for number, measured in phases.items()
    }
    rows = [[number, *(f"{figures[number][name]:g}" for name in names)] for number in figures]
    lost, before = (sum(max(0, p.due - p.sent) for p in phases[number]) for number in (pages, 0))
    growth = figures[str(pages)]["p95_ms"] - figures["0"]["p95_ms"]
    title = f"{pages} open pages, {size} at {fps:g} fps: p95 grows by {growth:+.1f} ms"
    title += f", {lost} frames lost with them and {before} without"
    say(title, rows, [figures], ("pages", *names))


if __name__ == "__main__":
    typer.run(web)
