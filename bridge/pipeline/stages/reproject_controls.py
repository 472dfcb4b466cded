"""The controls and readings of the stage `reproject`."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control import Kind, Reading, live


@dataclass(frozen=True, slots=True, kw_only=True)
class ReprojectControls:
    """How far the restyled picture is moved on to what the input shows now."""

    reproject: float = live(
        0.0,
        "/reproject",
        "How much of the lag of moving things is made up for: 0 shows them where the model saw them, 1 where they are.",
        group="Video",
        label="Reproject",
        low=0.0,
        high=1.0,
        glides=True,
    )


REPROJECTION = Reading(
    "reprojection",
    "/status/reproject",
    Kind.TEXT,
    "",
    "What reprojection does: off, on, held (a cut or a flash), pattern (the look is fixed to the screen), no input, or "
    "given up (a tick is too short for it).",
)
