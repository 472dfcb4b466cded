"""`tidecast bench bridge`: latency and processor time of the bridge without a model, with NDI in and out."""

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
from bridge.config_file import load
from engine.bench.report import quantiles, say, slashed
from engine.errors import EngineError

WARM_UP_S = 3.0
SETTLE_S = 9.0
"""By then the frames that the start of three programs delayed have left the window of the output's clock."""


def bridge(
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 20.0,
    width: Annotated[int, typer.Option(help="Width in pixels.")] = 1280,
    height: Annotated[int, typer.Option(help="Height in pixels.")] = 720,
    fps: Annotated[int, typer.Option(help="Frames per second of the source.")] = 60,
) -> None:
    """What the bridge costs without a model: identity engine, NDI in and out, three programs.

    Exit code 1 if a frame of the source is lost, or if the bridge adds more than one frame period of latency (median).
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
            time.sleep(SETTLE_S)
            app.publisher.main.longest_gap_ms = 0.0
            receiver.take()
            sender.times()
            late, before = sender.skipped(), dropped(app, receiver)
            processes = [psutil.Process(), psutil.Process(app.supervisor.process_id)]
            for process in processes:
                process.cpu_percent()
            codec = codec_seconds()
            time.sleep(seconds)
            cpu = [process.cpu_percent() for process in processes]
            codec = (codec_seconds() - codec) / seconds * 100.0
            seen, sent = receiver.take(), sender.times()
            late = sender.skipped() - late
            where = {cause: count - before[cause] for cause, count in dropped(app, receiver).items()}
    counters = {f.counter: f for f in reversed(seen) if f.counter is not None}  # the first arrival of each
    if len(counters) < 2:
        raise EngineError("The receiver got no frames.", "Is the machine overloaded?")
    given = [number for number in sent if min(counters) <= number <= max(counters)]
    lost = len(set(given) - set(counters))
    added = [(int(f.metadata["sent_ns"]) - int(f.metadata["captured_ns"])) / 1e6 for f in counters.values()]
    way = [(f.arrived_ns - sent[number]) / 1e6 for number, f in counters.items() if number in sent]
    added_ms = quantiles(added)
    passed = not lost and added_ms["p50"] < 1000.0 / fps
    row: dict[str, Any] = {
        "size": f"{width}x{height}",
        "fps_wanted": fps,
        "fps_source": rate([sent[number] for number in given]),
        "fps_received": rate([f.arrived_ns for f in seen]),
        "frames_given": len(given),
        "frames_not_given": late,
        "frames_lost": lost,
        "frames_dropped": where,
        "added_ms": added_ms,
        "whole_way_ms": quantiles(way),
        "one_hop_ms": quantiles(one_hop),
        "longest_gap_ms": round(app.publisher.main.longest_gap_ms, 1),
        "cpu_bridge_percent": cpu[0],
        "cpu_engine_percent": cpu[1],
        "cpu_ndi_percent": codec,
        "passed": passed,
    }
    say(
        f"The bridge alone, {row['size']} at {fps} fps through NDI",
        [
            ("frames that the source sent (skipped by it as too late)", f"{len(given)} ({late})"),
            ("frame rate of the source / of the receiver", f"{row['fps_source']:.2f} / {row['fps_received']:.2f} fps"),
            ("of those sent, lost on the way", f"{lost}"),
            *((f"dropped: {cause}", f"{count}") for cause, count in where.items()),
            ("latency that the bridge adds p50 / p95 / p99", slashed(added_ms)),
            ("camera to mixer, bridge and two NDI hops p50 / p95 / p99", slashed(row["whole_way_ms"])),
            ("one NDI hop p50 / p95 / p99", slashed(row["one_hop_ms"])),
            ("longest time between two sends", f"{row['longest_gap_ms']:.1f} ms"),
            ("processor, bridge and engine process", f"{cpu[0]:.0f} % + {cpu[1]:.0f} % of a core"),
            ("of that, NDI's own threads (encoding and decoding)", f"{codec:.0f} %"),
            ("passed", "yes" if passed else "NO"),
        ],
        [row],
    )
    raise typer.Exit(0 if passed else 1)


def dropped(app: App, receiver: Receiver) -> dict[str, int]:
    """Frames dropped so far, by place; the receiver also counts frames that came twice."""
    return {
        "at the input, for a newer one": app.capture.skipped,
        "on the way to the engine": app.supervisor.frames_replaced + app.supervisor.frames_lost,
        "by the output's clock, as too late": app.publisher.pacer.wet.late,
        "by the receiver, for a newer one": receiver.skipped(),
    }


def rate(times_ns: Sequence[int]) -> float:
    """Events per second, from their times."""
    return round((len(times_ns) - 1) * 1e9 / (times_ns[-1] - times_ns[0]), 2)


def codec_seconds() -> float:
    """Processor time of NDI's threads in this process so far, in s; 0 where the names of threads cannot be read."""
    spent = 0.0
    for thread in psutil.Process().threads():
        with contextlib.suppress(OSError):  # the thread has ended, or this is not Linux
            if Path(f"/proc/self/task/{thread.id}/comm").read_text().startswith("ndi"):
                spent += thread.user_time + thread.system_time
    return spent


def identity(source: str, sink: str, width: int, height: int) -> dict[str, Any]:
    """Settings of a bridge with the identity engine, a free OSC port and no page."""
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
    """Time from the sender's call to the arrival of each frame, ms."""
    return [(f.arrived_ns - int(f.metadata["sent_ns"])) / 1e6 for f in seen if "sent_ns" in f.metadata]


def wait_until_running(app: App, seconds: float = 120.0) -> None:
    """Wait until the engine's frames reach the output.

    Raises:
        EngineError: if none came in time, or the engine failed.
    """
    deadline = time.monotonic() + seconds
    while (read := app.telemetry.snapshot()).get("state") != "running" or not app.publisher.restyled.arrived_at:
        if app.failure:
            raise EngineError(app.failure)
        if time.monotonic() > deadline:
            raise EngineError(
                "The engine gave no frame in time.",
                f"Is the source running? The state is {read.get('state')!r}, {read.get('fps_in')} pictures a second "
                f"come in, the engine was started again {app.supervisor.restarts} times.",
            )
        time.sleep(0.05)
