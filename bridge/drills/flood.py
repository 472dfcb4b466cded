"""`tidecast bench flood`: OSC floods and malformed datagrams against a whole bridge, and what its output did."""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from bridge.app import App
from bridge.bench.overhead import identity, wait_until_running
from bridge.config_file import load
from bridge.drills import stress
from engine.bench.report import quantiles, say, slashed

FPS = 60.0
SETTLE_S = 2.0
IDLE_S = 5.0

FORCE_BAR_MS = 100.0
"""The last value of every address is in force this long after the flood."""

PRESS_BAR_MS = 1000.0 / 30.0
"""99 of 100 presses of a button beside the flood are in force within one frame of 30 a second."""

GAP_BAR_MS = 2.0 * 1000.0 / FPS
"""99 of 100 pictures follow the one before within this."""

FLOOD_MIB = 8.0
FUZZ_MIB = 16.0

WARM_UP = 2000
"""Datagrams before those whose memory counts: they load every transport and start a recording."""


def flood(
    seconds: Annotated[float, typer.Option(help="How long to flood.")] = 30.0,
    rate: Annotated[int, typer.Option(help="Messages per second of the flood.")] = 10_000,
    datagrams: Annotated[int, typer.Option(help="Datagrams of the fuzz.")] = 100_000,
    output: Annotated[str, typer.Option(help="Where the picture goes.")] = "null:",
) -> None:
    """Flood and fuzz the OSC of a bridge at 60 pictures a second; exit code 1 when a bar is missed."""
    with tempfile.TemporaryDirectory() as folder:
        settings = identity("pattern:bars", output, 320, 176) | {
            "output.fps": FPS,
            "storage.state_dir": folder,
            "storage.record_dir": folder,
        }
        with App(load(None, settings)) as app:
            assert app.osc is not None
            wait_until_running(app)
            time.sleep(SETTLE_S)
            idle = _Output(app)
            time.sleep(IDLE_S)
            idle.end()
            during = _Output(app)
            flooded = stress.flood(app.store, app.osc.address, seconds, rate)
            during.end()
            sent = app.publisher.sent
            stress.fuzz(app.store, app.osc.address, WARM_UP, seed=2)
            fuzzed = stress.fuzz(app.store, app.osc.address, datagrams)
            time.sleep(1.0)
            sending = app.publisher.sent > sent
    pressed = quantiles(flooded.press_ms)
    rows: list[tuple[str, str, str, bool]] = [
        ("flood: messages (per second)", f"{flooded.sent} ({flooded.rate:.0f})", "", True),
        ("flood: addresses with a stale last value", str(len(flooded.wrong)), "0", not flooded.wrong),
        (
            "flood: last values in force after",
            f"{flooded.settle_ms:.0f} ms",
            f"{FORCE_BAR_MS:.0f} ms",
            flooded.settle_ms <= FORCE_BAR_MS,
        ),
        (
            "flood: triggers obeyed / sent",
            f"{flooded.triggers_obeyed} / {flooded.triggers_sent}",
            "all",
            flooded.triggers_obeyed == flooded.triggers_sent,
        ),
        (
            "flood: another control in force, p50 / p95 / p99",
            slashed(pressed),
            f"p99 {PRESS_BAR_MS:.0f} ms",
            pressed["p99"] <= PRESS_BAR_MS,
        ),
        (
            "flood: presses of it not obeyed",
            f"{flooded.presses_lost} of {len(flooded.press_ms)}",
            "0",
            not flooded.presses_lost,
        ),
        (
            "flood: time between two pictures, p50 / p95 / p99",
            slashed(during.gaps),
            f"p99 {GAP_BAR_MS:.0f} ms",
            during.gaps["p99"] <= GAP_BAR_MS,
        ),
        (
            "flood: longest time between two pictures",
            f"{during.longest_ms:.0f} ms (idle {idle.longest_ms:.0f} ms)",
            "",
            True,
        ),
        (
            "flood: pictures a second",
            f"{during.fps:.2f} (idle {idle.fps:.2f})",
            "0.5 % of idle",
            abs(during.fps / idle.fps - 1.0) <= 0.005,
        ),
        (
            "flood: memory growth",
            f"{flooded.growth_mib:.1f} MiB",
            f"{FLOOD_MIB:.0f} MiB",
            flooded.growth_mib < FLOOD_MIB,
        ),
        ("flood: share of one core", f"{flooded.cpu:.0%}", "", True),
        ("fuzz: datagrams", str(fuzzed.sent), "", True),
        (
            "fuzz: still obeys / answers / sends pictures",
            f"{fuzzed.serving} / {fuzzed.answered} / {sending}",
            "True",
            fuzzed.serving and fuzzed.answered and sending,
        ),
        ("fuzz: memory growth", f"{fuzzed.growth_mib:.1f} MiB", f"{FUZZ_MIB:.0f} MiB", fuzzed.growth_mib < FUZZ_MIB),
    ]
    passed = all(held for *_, held in rows)
    figures: dict[str, Any] = {
        "flood": asdict(flooded) | {"press_ms": pressed},
        "output": {"idle": vars(idle), "during": vars(during)},
        "fuzz": asdict(fuzzed),
        "passed": passed,
    }
    say(
        "OSC under stress",
        [(what, value, bar, "yes" if held else "NO") for what, value, bar, held in rows],
        [figures],
        ("measure", "value", "bar", "held"),
    )
    raise typer.Exit(0 if passed else 1)


class _Output:
    """How the output runs from now until `end`."""

    def __init__(self, app: App) -> None:
        app.publisher.longest_gap_ms = 0.0
        self._app = app
        self._begun = app.publisher.sent, time.monotonic()

    def end(self) -> None:
        """Keep the figures only."""
        publisher = self._app.publisher
        sent, begun = self._begun
        self.fps = (publisher.sent - sent) / (time.monotonic() - begun)
        self.longest_ms = publisher.longest_gap_ms
        times = tuple(publisher.sent_at)[-(publisher.sent - sent) :]
        self.gaps = quantiles([(b - a) / 1e6 for a, b in itertools.pairwise(times)])
        del self._app, self._begun
