"""What open pages cost the stage: output frames and latency with none and with several pages at full preview rate.

A whole Tidecast runs here with the identity engine and a test picture; the pages are a process of their own that
takes both pictures as fast as they come and acknowledges them, as a browser does. Phases without and with pages
alternate, so that a slow drift of the machine falls on both. `python -m bridge.web.bench --help`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from bridge.app import App
from bridge.config import load
from bridge.pacing import WINDOW_NS

SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Phase:
    """What was measured in one phase.

    Attributes:
        due, sent: output frames that the clock asked for, and that were sent.
        shown: new frames per second.
        p50_ms, p95_ms: latency from capture to send.
        gap_ms: longest time between two output frames.
        pictures: previews per second that each page drew, both kinds together.
    """

    due: int
    sent: int
    shown: float
    p50_ms: float
    p95_ms: float
    gap_ms: float
    pictures: float


def watch(url: str, pages: int, pipe: Connection) -> None:
    """Process: `pages` pages that watch both pictures, until the pipe says stop; sends how many came."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    counts = [0] * pages

    def page(number: int) -> None:
        with contextlib.suppress(ConnectionClosed), connect(url, max_size=None, proxy=None) as socket:
            socket.send(json.dumps({"watch": ["output", "input"]}))
            for _ in socket:
                counts[number] += 1
                socket.send('"drawn"')

    for number in range(pages):
        threading.Thread(target=page, args=(number,), daemon=True).start()
    while pipe.recv() == "count":
        pipe.send(sum(counts))


@contextlib.contextmanager
def open_pages(url: str, pages: int) -> Any:
    """The pages' process; gives a function that tells how many pictures came since it was called last."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=watch, args=(url, pages, theirs), daemon=True)
    process.start()
    last = 0

    def count() -> int:
        nonlocal last
        ours.send("count")
        now = ours.recv()
        last, new = now, now - last
        return new

    try:
        yield count
    finally:
        ours.send("stop")
        process.join()


def measure(app: App, seconds: float, pages: int) -> Phase:
    """Run one phase."""
    assert app.room is not None
    url = app.room.url.replace("http", "ws", 1) + "api/preview"
    with open_pages(url, pages) if pages else contextlib.nullcontext(lambda: 0) as count:
        while pages and app.room.watched != {"output", "input"}:
            time.sleep(0.05)
        time.sleep(SETTLE_S)
        publisher = app.publisher
        count()
        sent, shown, begin = publisher.sent, publisher.pacer.latency.count, time.monotonic()
        publisher.longest_gap_ms = 0.0
        time.sleep(seconds)
        elapsed = time.monotonic() - begin
        sent, shown = publisher.sent - sent, publisher.pacer.latency.count - shown
        p50, p95, _ = publisher.pacer.latency.quantiles_ms()
        pictures = count() / elapsed / max(1, pages)
    return Phase(
        round(elapsed * app.config.output.fps), sent, shown / elapsed, p50, p95, publisher.longest_gap_ms, pictures
    )


def bench(pages: int, seconds: float, rounds: int, width: int, height: int, fps: float) -> dict[int, list[Phase]]:
    """Measure `rounds` phases without and with pages in turn; the phases by number of pages."""
    with tempfile.TemporaryDirectory() as folder:
        config = load(
            None,
            {
                "process.kind": "identity", "input.uri": "pattern:counter", "output.uri": "null:", "output.fps": fps,
                "osc.enabled": False, "web.port": 0, "web.announce": False, "storage.state_dir": folder,
                "engine.width": width, "engine.height": height,
            },
        )  # fmt: skip
        phases: dict[int, list[Phase]] = {0: [], pages: []}
        with App(config) as app:
            while app.telemetry.snapshot().get("state") != "running":
                time.sleep(0.1)
            for _ in range(rounds):
                for number, measured in phases.items():
                    measured.append(measure(app, max(seconds, WINDOW_NS / 1e9), number))
    return phases


def main() -> None:
    """Print the row for the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a phase")
    parser.add_argument("--rounds", type=int, default=3, help="phases of each kind")
    parser.add_argument("--size", default="512x512", help="WIDTHxHEIGHT of the picture")
    parser.add_argument("--fps", type=float, default=30.0, help="output rate")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    phases = bench(options.pages, options.seconds, options.rounds, width, height, options.fps)
    print(f"{width}x{height}, output at {options.fps:g} fps, identity engine; medians of {options.rounds} phases")
    print("pages  due   sent  new/s  p50 ms  p95 ms  longest gap ms  previews/s and page")
    for number, measured in phases.items():
        mid = {name: statistics.median(getattr(p, name) for p in measured) for name in Phase.__slots__}
        print(
            f"{number:5d}  {sum(p.due for p in measured):4d}  {sum(p.sent for p in measured):5d}  {mid['shown']:5.1f}"
            f"  {mid['p50_ms']:6.1f}  {mid['p95_ms']:6.1f}  {mid['gap_ms']:14.1f}  {mid['pictures']:.1f}"
        )
    none, some = (statistics.median(p.p95_ms for p in phases[n]) for n in phases)
    print(f"p95 latency grows by {some - none:+.1f} ms with {options.pages} pages")


if __name__ == "__main__":
    main()
