"""`tidecast bench faults`: runs every case and prints the table.

Each case reports the longest time between two sends and between two arrivals at the mixer, how long the mixer received
the same picture, the time to recovery, and whether every control kept its value. Two faults are simulated (a full disk,
a clock that jumps), and the memory of the text encoder; all others really happen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bridge.drills.faults.drill import Drill, Outcome
from bridge.drills.faults.programs import PROGRAM_CASES
from bridge.drills.faults.table import CASES
from engine.bench.report import say


def outcomes(model: str, only: str) -> Iterator[Outcome]:
    """Run every case whose name contains `only`, one after the other; one that this machine cannot cause is named."""
    chosen = [case for case in CASES if only in case.name]
    programs = [case for case in PROGRAM_CASES if only in case.name]
    reasons = {case.name: case.missing() for case in chosen} | {case.name: case.missing() for case in programs}
    for name, why in reasons.items():
        if why:
            print(f"{name}: NOT RUN. {why}", flush=True)
    if possible := [case for case in chosen if not reasons[case.name]]:
        with Drill({"process.kind": "identity"} if model == "identity" else {"engine.model": model}) as drill:
            for case in possible:
                yield drill.run(case)
    for program in programs:
        if not reasons[program.name]:
            with tempfile.TemporaryDirectory() as folder:
                yield program.run(Path(folder))


def faults(
    model: Annotated[str, typer.Option(help="Model to run; identity for the bridge alone.")] = "ember",
    only: Annotated[str, typer.Option(help="Only cases with this in their name.")] = "",
) -> None:
    """The fault drill: break each part in turn and measure the output; exit code 1 if a limit is exceeded."""
    results = []
    for outcome in outcomes(model, only):
        verdict = "passed" if outcome.passed else "NOT passed"
        print(
            f"{outcome.case}: longest gap {outcome.gap_ms:.0f} ms, same picture for {outcome.held_ms:.0f} ms, "
            f"{verdict}",
            flush=True,
        )
        results.append(outcome)
    rows = [
        (
            r.case,
            f"{r.gap_ms:.0f}",
            f"{r.gap_received_ms:.0f}" if r.gap_received_ms else "",
            f"{r.held_ms:.0f}" + (f" of {r.held_limit_ms:.0f}" if r.held_limit_ms else "") if r.held_ms else "",
            f"{r.machine_ms:.0f}",
            f"{r.recovery_s:.1f}",
            "yes" if r.controls else "NO",
            "yes" if r.passed else "NO",
        )
        for r in results
    ]
    headings = (
        "case",
        "gap sent, ms",
        "gap received, ms",
        "same picture, ms",
        "machine's own pause, ms",
        "recovery, s",
        "controls kept",
        "passed",
    )
    say("The fault drill", rows, [asdict(r) | {"passed": r.passed} for r in results], headings)
    raise typer.Exit(0 if results and all(r.passed for r in results) else 1)
