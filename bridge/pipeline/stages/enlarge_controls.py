"""The controls and readings of the stage `enlarge`."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control import Kind, Reading, live


@dataclass(frozen=True, slots=True, kw_only=True)
class EnlargeControls:
    """How the restyled picture is brought to the output's size."""

    detail: float = live(
        0.0,
        "/detail",
        "Fine detail of the input that is added where the output is larger than the model's picture.",
        group="Video",
        label="Detail",
        low=0.0,
        high=1.0,
        glides=True,
    )


GIVEN_UP = Reading(
    "given_up", "/status/given-up", Kind.TEXT, "", "What is left out of the picture because a tick is too short for it."
)
