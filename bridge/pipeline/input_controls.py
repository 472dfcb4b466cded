"""The controls of the capture thread."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.video.address import check_choice
from bridge.video.table import schemes
from engine.control import live


@dataclass(frozen=True, slots=True, kw_only=True)
class InputControls:
    """The chosen source."""

    input: str = live(
        "",
        "/input",
        f"Switch the source: an address ({schemes()}, then a name) or an index from the list of inputs.",
        group="Video",
        label="Input",
        stored="input",
        check=check_choice,
    )
