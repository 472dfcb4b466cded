"""The controls and readings of the stage `mask`."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from bridge.video.address import check_choice
from bridge.video.table import schemes
from engine.control import NEVER, Kind, Reading, live
from engine.errors import ConfigError

OFF, INSIDE, OUTSIDE, ALPHA = "off", "inside", "outside", "alpha"
PERSON, LUMA, CHROMA = "person", "luma", "chroma"
INPUT, COLOR, SECOND = "input", "color", "second"
SOURCES = (OFF, PERSON, LUMA, CHROMA, f"{PERSON}-{LUMA}", f"{PERSON}-{CHROMA}", INPUT, f"{PERSON}-{INPUT}")
"""Where the matte comes from. Two names: what belongs to both."""

GROUP = "Mask"


@functools.lru_cache(maxsize=64)
def color_of(text: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of a colour such as `#00b140`.

    Raises:
        ConfigError: it is no such colour.
    """
    found = re.fullmatch(r"#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", text.strip().lower())
    if found is None:
        raise ConfigError(f"{text[:40]!r} is no colour.", "Write red, green and blue in hexadecimal, such as #00b140.")
    return int(found[1], 16), int(found[2], 16), int(found[3], 16)


def check_color(text: str) -> None:
    """Check a colour.

    Raises:
        ConfigError: as `color_of`.
    """
    color_of(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskControls:
    """Where the picture is restyled and where it is not."""

    mask_source: str = live(
        OFF,
        "/mask/source",
        "What the matte is made of: people, brightness (luma), a colour that is left out (chroma), a second input, "
        "or two of them.",
        group=GROUP,
        label="Source",
        choices=SOURCES,
    )
    mask_use: str = live(
        OFF,
        "/mask/use",
        "Where the picture is restyled: everywhere (off), inside the matte, or outside of it; or everywhere, with the "
        "inside cut out (alpha).",
        group=GROUP,
        label="Restyle",
        choices=(OFF, INSIDE, OUTSIDE, ALPHA),
    )
    mask_view: bool = live(
        False, "/mask/view", "Sends the matte itself, to set it up.", group=GROUP, label="Show the matte", stored=NEVER
    )
    mask_invert: bool = live(
        False, "/mask/invert", "Exchanges the inside and the outside of the matte.", group=GROUP, label="Invert"
    )
    mask_mix: float = live(
        1.0,
        "/mask/mix",
        "Share of the restyled picture where the mask restyles.",
        group=GROUP,
        label="Restyled part",
        low=0.0,
        high=1.0,
        glides=True,
    )
    mask_rest: float = live(
        0.0,
        "/mask/rest",
        "Share of the restyled picture in the rest.",
        group=GROUP,
        label="Rest",
        low=0.0,
        high=1.0,
        glides=True,
    )
    mask_background: str = live(
        INPUT,
        "/mask/background",
        "What the rest shows: the input, one colour, or a second input.",
        group=GROUP,
        label="Rest shows",
        choices=(INPUT, COLOR, SECOND),
    )
    mask_background_color: str = live(
        "#000000",
        "/mask/background/color",
        "That colour, such as #000000.",
        group=GROUP,
        label="Rest colour",
        check=check_color,
    )
    mask_input: str = live(
        "",
        "/mask/input",
        f"The second input whose brightness or alpha is the matte: an address ({schemes()}, then a name) or an index "
        "from the list of inputs.",
        group=GROUP,
        label="Matte input",
        stored="input",
        check=check_choice,
    )
    mask_background_input: str = live(
        "",
        "/mask/background/input",
        "The second input that the rest shows: an address or an index, as for the matte.",
        group=GROUP,
        label="Rest input",
        stored="input",
        check=check_choice,
    )
    mask_threshold: float = live(
        0.5,
        "/mask/threshold",
        "How sure the person mask, or how bright the matte of a second input, must be; higher leaves more out.",
        group=GROUP,
        label="Threshold",
        low=0.05,
        high=0.95,
    )
    mask_softness: float = live(
        0.3,
        "/mask/softness",
        "How gradual the edge is around the threshold; 1 takes the matte of a second input as it is.",
        group=GROUP,
        label="Softness",
        low=0.0,
        high=1.0,
    )
    mask_smooth: float = live(
        0.7,
        "/mask/smooth",
        "How much unsure places of the person mask are averaged over time.",
        group=GROUP,
        label="Smoothing",
        low=0.0,
        high=0.95,
    )
    mask_grow: float = live(
        0.0,
        "/mask/grow",
        "Makes the matte larger, or smaller below 0, in percent of the picture's height.",
        group=GROUP,
        label="Grow",
        low=-5.0,
        high=5.0,
        unit="%",
        glides=True,
    )
    mask_feather: float = live(
        0.0,
        "/mask/feather",
        "Makes the edge of the matte soft over this distance, in percent of the picture's height.",
        group=GROUP,
        label="Feather",
        low=0.0,
        high=10.0,
        unit="%",
        glides=True,
    )
    mask_refine: bool = live(
        True, "/mask/refine", "Moves the edge of the matte to edges of the input.", group=GROUP, label="Refine"
    )
    mask_left: float = live(
        0.0,
        "/mask/region/left",
        "Left end of the region in which the matte is looked for; there is none outside.",
        group=GROUP,
        label="Region left",
        low=0.0,
        high=1.0,
    )
    mask_right: float = live(
        1.0, "/mask/region/right", "Its right end.", group=GROUP, label="Region right", low=0.0, high=1.0
    )
    mask_top: float = live(
        0.0, "/mask/region/top", "Its upper end.", group=GROUP, label="Region top", low=0.0, high=1.0
    )
    mask_bottom: float = live(
        1.0, "/mask/region/bottom", "Its lower end.", group=GROUP, label="Region bottom", low=0.0, high=1.0
    )
    mask_luma_low: float = live(
        0.3,
        "/mask/luma/low",
        "Luma key: the least brightness that belongs to the matte.",
        group=GROUP,
        label="Luma low",
        low=0.0,
        high=1.0,
    )
    mask_luma_high: float = live(
        1.0,
        "/mask/luma/high",
        "Luma key: the greatest brightness that belongs to the matte.",
        group=GROUP,
        label="Luma high",
        low=0.0,
        high=1.0,
    )
    mask_key: str = live(
        "#00b140",
        "/mask/key",
        "Chroma key: the colour that is left out, such as #00b140.",
        group=GROUP,
        label="Key colour",
        check=check_color,
    )
    mask_similarity: float = live(
        0.2,
        "/mask/similarity",
        "Chroma key: how far a colour may be from the key colour and is still left out.",
        group=GROUP,
        label="Similarity",
        low=0.0,
        high=1.0,
    )
    mask_key_softness: float = live(
        0.1,
        "/mask/key/softness",
        "How gradual both keys are.",
        group=GROUP,
        label="Key softness",
        low=0.0,
        high=1.0,
    )
    mask_spill: float = live(
        0.1,
        "/mask/spill",
        "Chroma key: takes the colour out of what is nearly the key colour inside the matte.",
        group=GROUP,
        label="Spill",
        low=0.0,
        high=1.0,
    )

    @property
    def person(self) -> bool:
        """Whether the engine process has to find people."""
        return self.active and self.mask_source.startswith(PERSON)

    @property
    def needs_matte_input(self) -> bool:
        """Whether the matte is made of a second input."""
        return self.active and self.mask_source.endswith(INPUT)

    @property
    def needs_background_input(self) -> bool:
        """Whether the rest shows a second input."""
        shown = self.active and not self.mask_view and self.mask_use in (INSIDE, OUTSIDE)
        return shown and self.mask_background == SECOND

    @property
    def active(self) -> bool:
        """Whether there is a matte."""
        return self.mask_source != OFF and (self.mask_use != OFF or self.mask_view)


STATE = Reading(
    "mask_state",
    "/status/mask",
    Kind.TEXT,
    "",
    "What the mask does: off, on, held (the person mask has jumped; the one before is shown), missing (no person mask "
    "or no picture of a second input comes; the whole picture is restyled), or no input.",
)
AREA = Reading(
    "mask_area", "/status/mask/area", Kind.FLOAT, "", "Share of the picture that belongs to the matte, 0..1."
)
READINGS = (STATE, AREA)
