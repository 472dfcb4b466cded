"""The controls of the stage `mix`."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control import live


@dataclass(frozen=True, slots=True, kw_only=True)
class MixControls:
    """The share of the restyled picture."""

    mix: float = live(
        1.0,
        "/mix",
        "Dry to wet, against the input frame of the same moment.",
        group="Stream",
        label="Mix",
        low=0.0,
        high=1.0,
        glides=True,
    )
