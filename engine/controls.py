"""The engine's live controls, the commands that change them, and the engine's readings.

OSC, OSCQuery, MIDI, the web page, the TouchDesigner component, the command line and the documents are generated from
these declarations and those of the other owners (see `bridge.table`). To add a control of the engine, add a field here
and use its value. Does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.control import Kind, Reading, command, live

PROMPT_SLOTS = 4
"""Number of prompts that can be blended."""

STAGES = ("upload", "encode", "dit", "decode", "download")
"""The stages of a chunk whose times are measured, in order."""


def _slot(number: int) -> Any:
    return live("", f"/prompt/{number}", f"Text of prompt {number}.", group="Prompts", label=f"Prompt {number}")


def _weight(number: int) -> Any:
    return live(
        1.0 if number == 1 else 0.0,
        f"/prompt/{number}/weight",
        f"Share of prompt {number} in the blend; the shares are divided by their sum, and when all are zero "
        "prompt 1 is used.",
        group="Prompts",
        label=f"Weight {number}",
        low=0.0,
        high=1.0,
        glides=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The values of the engine's live controls. Every field is valid.

    A chunk keeps the controls with which it was started. Use `dataclasses.replace` to change a value.

    Attributes:
        resets, anchors: counters that the commands increase. They are not controls. A reader that only sees the newest
            values notices every reset and anchor by a changed counter.
    """

    prompt_1: str = _slot(1)
    prompt_2: str = _slot(2)
    prompt_3: str = _slot(3)
    prompt_4: str = _slot(4)
    weight_1: float = _weight(1)
    weight_2: float = _weight(2)
    weight_3: float = _weight(3)
    weight_4: float = _weight(4)
    prompt_seconds: float = live(
        0.5,
        "/prompt/seconds",
        "Time that a change of prompts or weights travels over.",
        group="Prompts",
        label="Travel time",
        low=0.0,
        high=60.0,
        unit="s",
    )
    strength: float = live(
        0.6,
        "/strength",
        "Denoise strength: 0 shows the input, 1 keeps the least of it.",
        group="Stream",
        label="Strength",
        low=0.0,
        high=1.0,
        glides=True,
    )
    steps: int = live(
        2, "/steps", "Denoising steps: more are cleaner and slower.", group="Stream", label="Steps", low=1, high=4
    )
    motion: float = live(
        1.0,
        "/motion",
        "How far motion in the input lowers the noise (motion-aware noise).",
        group="Stream",
        label="Motion",
        low=0.0,
        high=1.0,
        glides=True,
    )
    seed: int = live(
        0,
        "/seed",
        "Noise seed: another number, another picture.",
        group="Stream",
        label="Seed",
        low=0,
        high=2**31 - 1,
        stored="seed",
    )
    slo_auto: bool = live(
        True,
        "/slo/auto",
        "Hold the output's rate and latency: the schedule lowers the steps, and with them the rows of the batch, and "
        "leaves out frames.",
        group="Latency",
        label="Hold latency",
        stored="latency",
    )
    slo_latency: float = live(
        400.0,
        "/slo/latency",
        "The latency that the scheduler holds.",
        group="Latency",
        label="Latency target",
        low=50.0,
        high=2000.0,
        unit="ms",
        stored="latency",
    )

    resets: int = 0
    anchors: int = 0

    @command(
        "/prompt",
        "Set prompt 1 to this text with weight 1 and the other weights to 0.",
        group="Prompts",
        label="Prompt",
        arguments=(("text", "s", True),),
    )
    def prompt(self, text: str) -> dict[str, Any]:
        """Use one prompt alone."""
        return {"prompt_1": text, **{f"weight_{n}": float(n == 1) for n in range(1, PROMPT_SLOTS + 1)}}

    @command("/reset", "New stream: forget the history.", group="Stream", label="Reset")
    def reset(self) -> dict[str, Any]:
        """Start a new stream."""
        return {"resets": self.resets + 1}

    @command(
        "/anchor",
        "Take the newest frame as the new sink (cures drift without a reset).",
        group="Stream",
        label="Anchor",
    )
    def anchor(self) -> dict[str, Any]:
        """Take a new sink frame."""
        return {"anchors": self.anchors + 1}

    def prompts(self) -> tuple[tuple[str, float], ...]:
        """(text, share) of every prompt with a weight; the shares sum to 1. Prompt 1 alone if all weights are zero."""
        weights = (self.weight_1, self.weight_2, self.weight_3, self.weight_4)
        texts = (self.prompt_1, self.prompt_2, self.prompt_3, self.prompt_4)
        total = sum(weights)
        if total <= 0.0:
            return ((self.prompt_1, 1.0),)
        return tuple((t, w / total) for t, w in zip(texts, weights, strict=True) if w > 0.0)


STAGE_TIMES = tuple(
    Reading(f"stage_{s}", f"/status/stage/{s}", Kind.FLOAT, "ms", f"Time per chunk of the stage {s}.") for s in STAGES
)
"""The time of each stage of the last chunk."""

IN_FORCE = (
    Reading("noise", "/status/noise", Kind.FLOAT, "", "The noise scale in force."),
    Reading("steps", "/status/steps", Kind.INT, "", "The denoising steps in force."),
    Reading("prompt", "/status/prompt", Kind.TEXT, "", "The prompt in force."),
    Reading("vram", "/status/vram", Kind.FLOAT, "GiB", "Accelerator memory in use; 0 without one."),
)
"""Settings of the last chunk, and memory in use."""
