"""The controls of the stage `fit`."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control import live


@dataclass(frozen=True, slots=True, kw_only=True)
class FitControls:
    """How the input is fitted to the output's size."""

    fit: str = live(
        "cover",
        "/fit",
        "How the input meets the output's size.",
        group="Video",
        label="Fit",
        choices=("cover", "contain", "stretch"),
    )
    mirror: bool = live(False, "/mirror", "Flip left and right.", group="Video", label="Mirror")
