"""`tidecast bench flood`: OSC floods and malformed datagrams against a whole bridge; measures its output."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
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

FORCE_LIMIT_MS = 100.0
"""Longest time after the flood until the last value of every address is in force."""

PRESS_LIMIT_MS = 1000.0 / 30.0
"""99 % of the presses of a button during the flood must be in force within this: one frame period at 30 fps."""

GAP_LIMIT_MS = 2.0 * 1000.0 / FPS
"""99 % of the frames must follow the one before within this: two frame periods."""

FLOOD_MIB = 8.0
FUZZ_MIB = 16.0

WARM_UP = 2000
"""Datagrams sent before memory is measured: they load every transport and start a recording."""


def flood(
    seconds: Annotated[float, typer.Option(help="How long to flood.")] = 30.0,
    rate: Annotated[int, typer.Option(help="Messages per second of the flood.")] = 10_000,
    datagrams: Annotated[int, typer.Option(help="Datagrams of the fuzz.")] = 100_000,
    output: Annotated[str, typer.Option(help="Where the picture goes.")] = "null:",
) -> None:
    """Flood and fuzz the OSC server of a bridge at 60 fps; exit code 1 if a limit is exceeded."""
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
            watched = watch(app)
            time.sleep(IDLE_S)
            idle, watched = watched(), watch(app)
            flooded = stress.flood(app.store, app.osc.address, seconds, rate)
            during = watched()
            sent = app.publisher.main.sent
            stress.fuzz(app.store, app.osc.address, WARM_UP, seed=2)
            fuzzed = stress.fuzz(app.store, app.osc.address, datagrams)
            time.sleep(1.0)
            sending = app.publisher.main.sent > sent
    pressed = quantiles(flooded.press_ms)
    rows: list[tuple[str, str, str, bool]] = [
        ("flood: messages (per second)", f"{flooded.sent} ({flooded.rate:.0f})", "", True),
        ("flood: addresses with a stale last value", str(len(flooded.wrong)), "0", not flooded.wrong),
        (
            "flood: last values in force after",
            f"{flooded.settle_ms:.0f} ms",
            f"{FORCE_LIMIT_MS:.0f} ms",
            flooded.settle_ms <= FORCE_LIMIT_MS,
        ),
        (
            "flood: triggers obeyed / sent",
            f"{flooded.triggers_obeyed} / {flooded.triggers_sent}",
            "all",
            flooded.triggers_obeyed == flooded.triggers_sent,
        ),
        (
            "flood: a press of the button in force, p50 / p95 / p99",
            slashed(pressed),
            f"p99 {PRESS_LIMIT_MS:.0f} ms",
            pressed["p99"] <= PRESS_LIMIT_MS,
        ),
        (
            "flood: presses without effect",
            f"{flooded.presses_lost} of {len(flooded.press_ms)}",
            "0",
            not flooded.presses_lost,
        ),
        (
            "flood: time between two frames, p50 / p95 / p99",
            slashed(during.gaps),
            f"p99 {GAP_LIMIT_MS:.0f} ms",
            during.gaps["p99"] <= GAP_LIMIT_MS,
        ),
        (
            "flood: longest time between two frames",
            f"{during.longest_ms:.0f} ms (idle {idle.longest_ms:.0f} ms)",
            "",
            True,
        ),
        (
            "flood: frames per second",
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
            "fuzz: still obeys / answers / sends frames",
            f"{fuzzed.serving} / {fuzzed.answered} / {sending}",
            "True",
            fuzzed.serving and fuzzed.answered and sending,
        ),
        ("fuzz: memory growth", f"{fuzzed.growth_mib:.1f} MiB", f"{FUZZ_MIB:.0f} MiB", fuzzed.growth_mib < FUZZ_MIB),
    ]
    passed = all(row[-1] for row in rows)
    figures: dict[str, Any] = {
        "flood": asdict(flooded) | {"press_ms": pressed},
        "output": {"idle": asdict(idle), "during": asdict(during)},
        "fuzz": asdict(fuzzed),
        "passed": passed,
    }
    say(
        "OSC under stress",
        [(what, value, limit, "yes" if kept else "NO") for what, value, limit, kept in rows],
        [figures],
        ("measure", "value", "limit", "passed"),
    )
    raise typer.Exit(0 if passed else 1)


@dataclass(frozen=True, slots=True)
class Output:
    """What the output did for a while.

    Attributes:
        fps: frames sent per second.
        longest_ms: longest time between two sends.
        gaps: quantiles of the times between two sends, ms.
    """

    fps: float
    longest_ms: float
    gaps: dict[str, float]


def watch(app: App) -> Callable[[], Output]:
    """Start to watch the output; the function that is returned gives its figures since then."""
    output = app.publisher.main
    output.longest_gap_ms = 0.0
    sent_before, begun = output.sent, time.monotonic()

    def figures() -> Output:
        sent = output.sent - sent_before
        times = tuple(output.sent_at)[-sent:]
        gaps = quantiles([(b - a) / 1e6 for a, b in itertools.pairwise(times)])
        return Output(sent / (time.monotonic() - begun), output.longest_gap_ms, gaps)

    return figures
