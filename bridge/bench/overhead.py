"""`tidecast bench bridge`: what the bridge costs without a model, through NDI in and out, between processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bridge.app import App
from bridge.bench.peers import Receiver, Seen, Sender
from bridge.bench.report import quantiles, say, slashed
from bridge.config import load
from engine.errors import EngineError

WARM_UP_S = 3.0


def bridge(
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 20.0,
    width: Annotated[int, typer.Option(help="Width in pixels.")] = 1280,
    height: Annotated[int, typer.Option(help="Height in pixels.")] = 720,
    fps: Annotated[int, typer.Option(help="Frames per second of the source.")] = 60,
) -> None:
    """What the bridge costs without a model: identity engine, NDI in and out, three programs.

    Exit code 1 when a frame is lost that the source sent and the receiver was quick enough to read, or when the bridge
    adds more than one frame period at the median.
    """
    mark = f"Tidecast bench {os.getpid()}"
    with Sender(f"ndi:{mark} in", width, height, fps) as sender:
        with Receiver(f"ndi:{mark} in") as direct:
            time.sleep(WARM_UP_S)
            direct.take()
            time.sleep(min(5.0, seconds))
            one_hop = latencies(direct.take())
        config = load(None, identity(f"ndi:{mark} in", f"ndi:{mark} out", width, height))
        with App(config) as app, Receiver(f"ndi:{mark} out") as receiver:
            wait_until_running(app)
            time.sleep(WARM_UP_S)
            app.publisher.longest_gap_ms = 0.0
            receiver.take()
            sender.times()
            skipped, unread = sender.skipped(), receiver.skipped()
            processes = [psutil.Process(), psutil.Process(app.supervisor.process_id)]
            for process in processes:
                process.cpu_percent()
            codec = codec_seconds()
            time.sleep(seconds)
            cpu = [process.cpu_percent() for process in processes]
            codec = (codec_seconds() - codec) / seconds * 100.0
            seen = receiver.take()
            sent = sender.times()
            skipped, unread = sender.skipped() - skipped, receiver.skipped() - unread
            readings = app.telemetry.snapshot()
    counters = {f.counter: f for f in reversed(seen) if f.counter is not None}  # the first time that each was seen
    if len(counters) < 2:
        raise EngineError("The receiver got no pictures.", "Is the machine overloaded?")
    added = [(int(f.metadata["sent_ns"]) - int(f.metadata["captured_ns"])) / 1e6 for f in counters.values()]
    way = [(f.arrived_ns - sent[number]) / 1e6 for number, f in counters.items() if number in sent]
    expected = max(counters) - min(counters) + 1 - skipped
    lost = max(0, expected - len(counters))
    added_ms = quantiles(added)
    passed = lost <= unread and added_ms["p50"] < 1000.0 / fps
    row: dict[str, Any] = {
        "size": f"{width}x{height}",
        "fps_source": fps,
        "fps_received": round((len(seen) - 1) * 1e9 / (seen[-1].arrived_ns - seen[0].arrived_ns), 2),
        "frames_expected": expected,
        "frames_lost": lost,
        "frames_not_sent": skipped,
        "frames_not_read": unread,
        "added_ms": added_ms,
        "whole_way_ms": quantiles(way),
        "one_hop_ms": quantiles(one_hop),
        "longest_gap_ms": round(app.publisher.longest_gap_ms, 1),
        "cpu_bridge_percent": cpu[0],
        "cpu_engine_percent": cpu[1],
        "cpu_ndi_percent": codec,
        "passed": passed,
        "dropped": {k: v for k, v in readings.items() if k.startswith("dropped")},
    }
    say(
        f"The bridge alone, {row['size']} at {fps} fps through NDI",
        [
            ("frames received per second", f"{row['fps_received']:.2f}"),
            ("frames lost", f"{row['frames_lost']} of {expected}"),
            ("frames that the source was too slow to send", f"{skipped}"),
            ("frames that the receiver was too slow to read, repeated ones too", f"{unread}"),
            ("latency that the bridge adds p50 / p95 / p99", slashed(added_ms)),
            ("camera to mixer, bridge and two NDI hops p50 / p95 / p99", slashed(row["whole_way_ms"])),
            ("one NDI hop p50 / p95 / p99", slashed(row["one_hop_ms"])),
            ("longest time between two sends", f"{row['longest_gap_ms']:.1f} ms"),
            ("processor, bridge and engine process", f"{cpu[0]:.0f} % + {cpu[1]:.0f} % of a core"),
            ("of it NDI's own threads (coding and decoding)", f"{codec:.0f} %"),
            ("passed", "yes" if passed else "NO"),
        ],
        row,
    )
    raise typer.Exit(0 if passed else 1)


def codec_seconds() -> float:
    """Processor time that NDI's own threads of this process have used, in s; 0 where threads have no names to see."""
    spent = 0.0
    for thread in psutil.Process().threads():
        with contextlib.suppress(OSError):  # it has ended, or this is not Linux
            if Path(f"/proc/self/task/{thread.id}/comm").read_text().startswith("ndi"):
                spent += thread.user_time + thread.system_time
    return spent


def identity(source: str, sink: str, width: int, height: int) -> dict[str, Any]:
    """Settings of a bridge without a model, on ports of its own."""
    return {
        "process.kind": "identity",
        "input.uri": source,
        "output.uri": sink,
        "engine.width": width,
        "engine.height": height,
        "osc.port": 0,
        "web.enabled": False,
        "web.oscquery": False,
    }


def latencies(seen: Sequence[Seen]) -> list[float]:
    """From the sender's call to the arrival, ms."""
    return [(f.arrived_ns - int(f.metadata["sent_ns"])) / 1e6 for f in seen if "sent_ns" in f.metadata]


def wait_until_running(app: App, seconds: float = 120.0) -> None:
    """Wait for restyled pictures.

    Raises:
        EngineError: none came in time.
    """
    deadline = time.monotonic() + seconds
    while app.telemetry.snapshot().get("state") != "running" or not app.publisher.styled_at:
        if app.failure:
            raise EngineError(app.failure)
        if time.monotonic() > deadline:
            raise EngineError("The engine gave no picture in time.", "Is the source there?")
        time.sleep(0.05)
