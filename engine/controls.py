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

LORA_SLOTS = 8
"""Number of LoRAs that can be loaded at a time."""

LORA_ENDINGS = ("safetensors", "pt", "pth")
"""Endings of LoRA files."""

STAGES = ("upload", "encode", "dit", "decode", "download")
"""The stages of a chunk whose times are measured, in order."""


def _slot(number: int) -> Any:
    return live(
        "", f"/prompt/{number}", f"Text of prompt {number}.", group="Prompts", label=f"Prompt {number}", snaps=True
    )


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


def _lora(number: int) -> Any:
    return live(
        0.0,
        f"/lora/{number}",
        f"Strength of LoRA {number}: 0 is without it, 1 as it was trained, below 0 its opposite.",
        group="LoRA",
        label=f"LoRA {number}",
        low=-2.0,
        high=2.0,
        glides=True,
    )


def _lora_file(number: int) -> Any:
    return live(
        "",
        f"/lora/{number}/file",
        f"File of LoRA {number}, on the machine of the engine; empty for the one of the configuration.",
        group="LoRA",
        label=f"File {number}",
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
        2,
        "/steps",
        "Denoising steps: more are cleaner and slower.",
        group="Stream",
        label="Steps",
        low=1,
        high=4,
        snaps=True,
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

    lora_1: float = _lora(1)
    lora_2: float = _lora(2)
    lora_3: float = _lora(3)
    lora_4: float = _lora(4)
    lora_5: float = _lora(5)
    lora_6: float = _lora(6)
    lora_7: float = _lora(7)
    lora_8: float = _lora(8)
    lora_1_file: str = _lora_file(1)
    lora_2_file: str = _lora_file(2)
    lora_3_file: str = _lora_file(3)
    lora_4_file: str = _lora_file(4)
    lora_5_file: str = _lora_file(5)
    lora_6_file: str = _lora_file(6)
    lora_7_file: str = _lora_file(7)
    lora_8_file: str = _lora_file(8)

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

    def lora_strengths(self) -> tuple[float, ...]:
        """The strength of every LoRA slot."""
        return tuple(getattr(self, f"lora_{number}") for number in range(1, LORA_SLOTS + 1))

    def lora_files(self) -> tuple[str, ...]:
        """The file of every LoRA slot; empty for the one of the configuration."""
        return tuple(getattr(self, f"lora_{number}_file") for number in range(1, LORA_SLOTS + 1))


STAGE_TIMES = tuple(
    Reading(f"stage_{s}", f"/status/stage/{s}", Kind.FLOAT, "ms", f"Time per chunk of the stage {s}.") for s in STAGES
)
"""The time of each stage of the last chunk."""

IN_FORCE = (
    Reading(
        "noise", "/status/noise", Kind.FLOAT, "", "The noise scale in force, on the scale of the strength control."
    ),
    Reading("steps", "/status/steps", Kind.INT, "", "The denoising steps in force."),
    Reading("prompt", "/status/prompt", Kind.TEXT, "", "The prompt in force."),
    Reading("loras", "/status/loras", Kind.TEXT, "", "The loaded LoRAs: slot, name, and trigger words for the prompt."),
    Reading("vram", "/status/vram", Kind.FLOAT, "GiB", "Accelerator memory in use; 0 without one."),
)
"""Settings of the last chunk, and memory in use."""
