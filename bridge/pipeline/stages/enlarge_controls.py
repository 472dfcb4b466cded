"""The controls of the stage `enlarge`."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control import live


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
