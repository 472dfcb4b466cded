"""The controls and the reading of the recorder."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control import Kind, Reading, live


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordControls:
    """What is recorded."""

    record: bool = live(
        False, "/record", "Record the output to a file.", group="Recording", label="Record", stored="recording"
    )
    record_input: bool = live(
        False,
        "/record/input",
        "Record the input beside the output.",
        group="Recording",
        label="Record input too",
        stored="recording",
    )


RECORDED = Reading(
    "recorded", "/status/recorded", Kind.TEXT, "", "The file that was recorded last; empty before the first."
)
RECORDING = Reading(
    "recording", "/status/recording", Kind.TEXT, "", "The file that is being recorded; empty when none is."
)
