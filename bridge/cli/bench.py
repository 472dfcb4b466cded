"""`tidecast bench`: every figure of the documents. A table for people, then one line of JSON.

Drills that break or flood a running program (`bridge.drills`) are for a checkout and not in the installed package.
"""

from __future__ import annotations

from typing import ClassVar

import typer

from bridge.cli.lazy import LazyGroup


class Benches(LazyGroup):
    """The benchmarks; each is imported when it is run."""

    parts: ClassVar[dict[str, tuple[str, str, str]]] = {
        "engine": ("bridge.bench.model", "engine", "A model, frame to frame."),
        "pipeline": ("bridge.bench.model", "pipeline", "Several devices against one."),
        "slo": ("bridge.bench.model", "slo", "The schedule on invented clocks."),
        "compare": ("bridge.bench.model", "compare", "Two files of figures."),
        "bridge": ("bridge.bench.overhead", "bridge", "What the bridge costs without a model."),
        "faults": ("bridge.drills.faults", "faults", "The fault drill."),
        "flood": ("bridge.drills.flood", "flood", "OSC floods and malformed datagrams against the bridge."),
        "soak": ("bridge.drills.soak", "soak", "Hours in short: memory, threads, handles, drift."),
        "web": ("bridge.drills.web", "web", "What three open pages cost the stage."),
        "start": ("bridge.drills.start", "start", "Start and stop many times: what is left behind."),
    }


app = typer.Typer(cls=Benches, help="Measure.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure: every figure of the README has its command here."""
