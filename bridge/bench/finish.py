"""`tidecast bench finish`: a small picture of the engine on a large wall, beside the bare transport."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any

import psutil
import typer

from bridge.app import App
from bridge.bench.overhead import SETTLE_S, WARM_UP_S, codec_seconds, dropped, identity, rate, wait_until_running
from bridge.bench.peers import Receiver, Seen, Sender
from bridge.cli.size import parse_size
from bridge.config_file import load
from bridge.pipeline.canvas.size import parse
from bridge.pipeline.stages.base import Place
from bridge.pipeline.stages.table import STAGES
from engine.bench.report import quantiles, say, slashed
from engine.errors import ConfigError

ALLOWANCE = 0.005
"""Share of the pictures by which the bridge may lose more than the bare transport."""


def finish(
    seconds: Annotated[float, typer.Option(help="How long to measure, for each of both.")] = 20.0,
    size: Annotated[str, typer.Option(help="Size of the engine's picture.")] = "512x288",
    output_size: Annotated[str, typer.Option(help="Size of the output and of the source.")] = "1920x1080",
    fps: Annotated[int, typer.Option(help="Pictures per second of both.")] = 60,
    reproject: Annotated[float, typer.Option(help="The control of this name.")] = 1.0,
    detail: Annotated[float, typer.Option(help="The control of this name.")] = 0.0,
) -> None:
    """The way from a large source through a small engine (identity) to a large output, NDI in and out.

    Exit code 1 if more pictures are lost than on the bare way from sender to receiver, or if half of them leave later
    than one tick after the input whose motion they show.
    """
    (width, height), canvas = parse_size(size), parse(output_size)
    if isinstance(canvas, str):
        raise ConfigError(f"The output cannot be {canvas} here.", "Write width x height, such as 1920x1080.")
    wide, high = canvas
    mark = f"Tidecast bench {os.getpid()}"
    with Sender(f"ndi:{mark} in", wide, high, fps) as sender:
        with Receiver(f"ndi:{mark} in") as direct:
            time.sleep(WARM_UP_S)
            direct.take()
            sender.times()
            time.sleep(seconds)
            bare = share_lost(len(sender.times()), direct.take())
        settings = identity(f"ndi:{mark} in", f"ndi:{mark} out", width, height) | {
            "output.fps": float(fps),
            "controls.output_size": output_size,
            "controls.reproject": reproject,
            "controls.detail": detail,
        }
        with App(load(None, settings)) as app, Receiver(f"ndi:{mark} out") as receiver:
            wait_until_running(app)
            time.sleep(SETTLE_S)
            receiver.take()
            app.publisher.main.longest_gap_ms = 0.0
            sent, before, process = app.publisher.main.sent, dropped(app, receiver), psutil.Process()
            process.cpu_percent()
            codec, began = codec_seconds(), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            cpu, codec = process.cpu_percent(), (codec_seconds() - codec) / took * 100.0
            seen, sent = receiver.take(), app.publisher.main.sent - sent
            where = {cause: count - before[cause] for cause, count in dropped(app, receiver).items()}
            readings, longest_gap_ms = app.telemetry.snapshot(), app.publisher.main.longest_gap_ms
    lost = share_lost(sent, seen)
    motion, style = ages(seen, "shows_ns"), ages(seen, "captured_ns")
    costs = {row.name: round(float(readings[row.cost.name]), 2) for row in STAGES if row.place is not Place.RESTYLED}
    passed = lost <= bare + ALLOWANCE and quantiles(motion)["p50"] < 1000.0 / fps
    row: dict[str, Any] = {
        "size": size,
        "output_size": output_size,
        "fps": fps,
        "reproject": reproject,
        "detail": detail,
        "fps_sent": round(sent / took, 2),
        "fps_received": rate([f.arrived_ns for f in seen]) if len(seen) > 1 else 0.0,
        "lost_percent": round(100 * lost, 2),
        "lost_bare_percent": round(100 * bare, 2),
        "dropped": where,
        "motion_latency_ms": quantiles(motion),
        "style_latency_ms": quantiles(style),
        "stage_ms": costs,
        "given_up": readings.get("given_up", ""),
        "reprojection": readings.get("reprojection", ""),
        "longest_gap_ms": round(longest_gap_ms, 1),
        "cpu_bridge_percent": cpu,
        "cpu_ndi_percent": codec,
        "passed": passed,
    }
    say(
        f"{size} on {output_size} at {fps} pictures a second",
        [
            ("sent / received per second", f"{row['fps_sent']:.2f} / {row['fps_received']:.2f}"),
            ("lost between sender and receiver, bare", f"{100 * bare:.2f} %"),
            ("lost between output and receiver", f"{100 * lost:.2f} %"),
            *((f"dropped: {cause}", f"{count}") for cause, count in where.items()),
            ("latency of the motion p50 / p95 / p99", slashed(row["motion_latency_ms"])),
            ("latency of the style p50 / p95 / p99", slashed(row["style_latency_ms"])),
            *((f"stage {name}", f"{cost:.2f} ms") for name, cost in costs.items()),
            ("reprojection", str(row["reprojection"])),
            ("left out because a tick is too short", str(row["given_up"]) or "nothing"),
            ("longest time between two sends", f"{longest_gap_ms:.1f} ms"),
            ("processor, bridge", f"{cpu:.0f} % of a core"),
            ("of that, NDI's own threads (encoding and decoding)", f"{codec:.0f} %"),
            ("passed", "yes" if passed else "NO"),
        ],
        [row],
    )
    raise typer.Exit(0 if passed else 1)


def ages(seen: list[Seen], since: str) -> list[float]:
    """Time from what this key of the metadata says until the picture was sent, in ms."""
    return [(int(f.metadata["sent_ns"]) - int(f.metadata[since])) / 1e6 for f in seen if since in f.metadata]


def share_lost(sent: int, seen: list[Seen]) -> float:
    """Share of the pictures that did not arrive; one that came twice counts once."""
    arrived = len({frame.metadata.get("sent_ns") for frame in seen})
    return max(0.0, 1.0 - arrived / sent) if sent else 1.0
