"""The controls and readings of the stage `alpha`."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.video.alpha import PREMULTIPLIED, STRAIGHT
from engine.control import NEVER, Kind, Reading, live

OFF, LEFT_OUT, OPAQUE = "off", "left out", "opaque"
STATES = (OFF, LEFT_OUT, OPAQUE, STRAIGHT, PREMULTIPLIED)
"""Values of the reading `alpha_state`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaControls:
    """Whether pictures come in and leave with transparency."""

    output_alpha: str = live(
        OFF,
        "/output/alpha",
        "Transparency of the outputs: none (off), straight (the whole picture and its alpha), or premultiplied (the "
        "colours multiplied by the alpha).",
        group="Video",
        label="Output alpha",
        choices=(OFF, STRAIGHT, PREMULTIPLIED),
        stored=NEVER,
    )
    input_alpha: str = live(
        STRAIGHT,
        "/input/alpha",
        "What the input's alpha is taken for while output alpha is on: straight, premultiplied, or nothing (off).",
        group="Video",
        label="Input alpha",
        choices=(STRAIGHT, PREMULTIPLIED, OFF),
        stored=NEVER,
    )


STATE = Reading(
    "alpha_state",
    "/status/output/alpha",
    Kind.TEXT,
    "",
    "How the picture leaves: off (nothing of it is transparent), left out (something is, but output alpha is off), "
    "opaque (nothing is transparent now), straight or premultiplied.",
)
UNABLE = Reading(
    "alpha_unable",
    "/status/output/alpha/unable",
    Kind.TEXT,
    "",
    "The outputs that send the whole picture although output alpha is on, because they cannot send transparency.",
)
