"""The controls of the capture thread."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control import live


@dataclass(frozen=True, slots=True, kw_only=True)
class InputControls:
    """The chosen source."""

    input: str = live(
        "",
        "/input",
        "Switch the source: an address, such as ndi:NAME or file:PATH, or an index from the list of inputs.",
        group="Video",
        label="Input",
    )
