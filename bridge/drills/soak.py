"""`tidecast bench soak`: runs the bridge for a while and reports whether anything grows or drifts."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from typing import Annotated, Any

import psutil
import typer

from bridge.app import App
from bridge.bench.overhead import wait_until_running
from bridge.config_file import load
from bridge.pipeline.pacing.output_clock import CREDIT_RATE, MAX_CREDIT
from engine.bench.report import say

SETTLE_S = 15.0
"""Start-up, which is not measured: caches fill, the output finds its delay."""

SAMPLE_S = 1.0
DRIFT_LIMIT = 0.001
GROWTH_LIMIT = 0.02
"""Share by which memory may grow from the first to the last quarter. The lowest value of each is compared, because one
frame more in a queue already takes 3 MiB."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Use at one moment: memory of bridge and engine in MiB, threads and handles of the bridge."""

    bridge_mib: float
    engine_mib: float
    threads: int
    handles: int


def soak(
    minutes: Annotated[float, typer.Option(help="How long.")] = 30.0,
    model: Annotated[str, typer.Option(help="Model to run; identity for the bridge alone.")] = "identity",
    output: Annotated[str, typer.Option(help="Where the picture goes.")] = "null:",
    source: Annotated[str, typer.Option(help="Where the picture comes from.")] = "pattern:bars",
) -> None:
    """Memory, threads, handles and output rate over time; exit code 1 if anything grows or drifts."""
    engine: dict[str, Any] = {"process.kind": "identity"} if model == "identity" else {"engine.model": model}
    settings = {"input.uri": source, "output.uri": output, "output.fps": 30.0, "osc.port": 0, "web.port": 0, **engine}
    with App(load(None, settings)) as app:
        wait_until_running(app)
        time.sleep(SETTLE_S)
        began_ns, began = time.monotonic_ns(), app.publisher.main.sent
        samples = []
        for number in itertools.count(1):
            samples.append(sample(app))
            due = began_ns + int(number * SAMPLE_S * 1e9)
            if due - began_ns > minutes * 60e9:
                break
            time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
        seconds = (time.monotonic_ns() - began_ns) / 1e9
        sent = app.publisher.main.sent - began
        gap_ms = app.publisher.main.longest_gap_ms
        restarts = app.supervisor.restarts
    quarter = max(1, len(samples) // 4)
    started = len(samples) // 10  # not compared: caches, rings and the allocator are still growing
    first, last = samples[started : started + quarter], samples[-quarter:]
    growth = {
        "bridge": min(s.bridge_mib for s in last) / min(s.bridge_mib for s in first) - 1.0,
        "engine": min(s.engine_mib for s in last) / min(s.engine_mib for s in first) - 1.0,
    }
    drift = sent / (seconds * 30.0) - 1.0
    threads = [statistics.median_high([s.threads for s in part]) for part in (first, last)]
    handles = [statistics.median_high([s.handles for s in part]) for part in (first, last)]
    # Neither a frame more or less at the ends nor the few that the clock may catch up after a pause are drift.
    limit = max(DRIFT_LIMIT, CREDIT_RATE + (MAX_CREDIT + 1.5) / max(1, sent))
    passed = (
        max(growth.values()) <= GROWTH_LIMIT
        and abs(drift) <= limit
        and threads[0] == threads[1]
        and handles[0] == handles[1]
        and restarts == 0
    )
    figures = {
        "minutes": minutes,
        "model": model,
        "growth": growth,
        "drift": drift,
        "threads": threads,
        "handles": handles,
        "longest_gap_ms": gap_ms,
        "engine_restarts": restarts,
        "passed": passed,
        "bridge_mib": min(s.bridge_mib for s in last),
        "engine_mib": min(s.engine_mib for s in last),
    }
    say(
        f"{minutes:g} minutes with {model}",
        [
            ("memory of the bridge", f"{figures['bridge_mib']:.0f} MiB, {growth['bridge']:+.2%}"),
            ("memory of the engine", f"{figures['engine_mib']:.0f} MiB, {growth['engine']:+.2%}"),
            ("threads, first and last quarter", f"{threads[0]}, {threads[1]}"),
            ("handles, first and last quarter", f"{handles[0]}, {handles[1]}"),
            ("drift of the output's rate", f"{drift:+.4%}"),
            ("longest time between two sends", f"{gap_ms:.0f} ms"),
            ("passed", "yes" if passed else "NO"),
        ],
        [figures],
    )
    raise typer.Exit(0 if passed else 1)


def sample(app: App) -> Sample:
    """Measure now."""
    bridge = psutil.Process()
    engine = psutil.Process(app.supervisor.process_id or None)
    handles = bridge.num_fds() if hasattr(bridge, "num_fds") else bridge.num_handles()
    mib = 2.0**20
    return Sample(bridge.memory_info().rss / mib, engine.memory_info().rss / mib, bridge.num_threads(), handles)
