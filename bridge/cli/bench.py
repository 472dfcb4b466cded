"""`tidecast bench`: every figure of the documents, as a table for people and one line of JSON.

The drills (`bridge.drills`), which break or flood a running program, need a checkout: they are not installed.
"""

from __future__ import annotations

from typing import ClassVar

import typer

from bridge.cli.lazy import LazyGroup


class Benches(LazyGroup):
    """The benchmarks; each module is imported when its command is run."""

    parts: ClassVar[dict[str, tuple[str, str, str]]] = {
        "engine": ("bridge.bench.model", "engine", "A model, frame to frame."),
        "pipeline": ("bridge.bench.model", "pipeline", "Several devices against one."),
        "card": ("bridge.bench.model", "card", "Everything on an NVIDIA card, in a quarter of an hour."),
        "slo": ("bridge.bench.model", "slo", "The schedule on simulated machines."),
        "overload": ("bridge.bench.overload", "overload", "The latency on machines that are too slow, simulated."),
        "compare": ("bridge.bench.model", "compare", "Two files of results."),
        "bridge": ("bridge.bench.overhead", "bridge", "What the bridge costs without a model."),
        "reprojection": ("bridge.bench.reprojection", "reprojection", "Late pictures, held and moved on."),
        "mask": ("bridge.bench.mask", "mask", "The person mask and the keys, on pictures whose masks are known."),
        "looks": ("bridge.bench.looks", "looks", "Whether every tenth of strength shows, and the middle of a blend."),
        "loras": ("bridge.bench.loras", "loras", "LoRAs on faders: swept against still, and a merge at true sizes."),
        "finish": ("bridge.bench.finish", "finish", "A small picture of the engine on a large wall."),
        "modulation": ("bridge.bench.modulation", "modulation", "What ten modulators cost."),
        "window": ("bridge.bench.window", "window", "Whether a display keeps up with the output."),
        "faults": ("bridge.drills.faults.command", "faults", "The fault drill."),
        "flood": ("bridge.drills.flood", "flood", "OSC floods and malformed datagrams against the bridge."),
        "fuzz": ("bridge.drills.fuzz", "fuzz_command", "Made-up inputs for everything that takes bytes from outside."),
        "soak": ("bridge.drills.soak", "soak", "A long run: memory, threads, handles, drift."),
        "web": ("bridge.drills.web", "web", "What open pages cost the output."),
        "strangers": ("bridge.drills.strangers", "strangers", "What another machine can do to a running bridge."),
        "start": ("bridge.drills.start", "start", "Start and stop many times; nothing may be left behind."),
    }


app = typer.Typer(cls=Benches, help="Measure.", no_args_is_help=True, add_completion=False)


@app.callback()
def bench() -> None:
    """Measure: every figure in the documents comes from one of these commands."""
