"""The table of everything that can be changed, asked or read, composed from the owners: `TABLE`.

OSC, OSCQuery, MIDI, the control room, the TouchDesigner component, the command line and the documents are given this
table and show all of it. To add a control, add a field to its owner; to add an owner, name it here.
`python -m bridge.table` prints the table as Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.control.document import markdown
from bridge.control.midi.input import LEARN
from bridge.control.osc.server import HEARTBEAT, INPUTS, RESEND, SUBSCRIBE
from bridge.control.quit import QUIT
from bridge.control.snapshots import RECALL, SAVE
from bridge.control.store import PING
from bridge.control.table import ControlTable, compose
from bridge.control.values import Snapshot
from bridge.pipeline import readings
from bridge.pipeline.input_controls import InputControls
from bridge.pipeline.panic import PanicControls
from bridge.pipeline.stages.fit_controls import FitControls
from bridge.pipeline.stages.mix_controls import MixControls
from bridge.video.files.record_controls import RECORDING, RecordControls
from engine.controls import IN_FORCE, STAGE_TIMES, Controls

OWNERS = (Controls, MixControls, PanicControls, FitControls, InputControls, RecordControls)
"""Whoever obeys controls; within a group, their controls are shown in this order."""

GROUPS = ("Prompts", "Stream", "Panic", "Video", "Latency", "Recording")
"""The order in which generated pages show the groups of controls."""

COMMANDS = (SAVE, RECALL, LEARN, SUBSCRIBE, RESEND, INPUTS, QUIT, PING)
"""Commands that are carried out by more than a change of controls."""

READINGS = (*readings.RATES, *STAGE_TIMES, *readings.DROPS, *IN_FORCE, *readings.NAMES, RECORDING, HEARTBEAT)
"""Everything that is reported. Errors go out at `/error` (address or topic, reason) when they occur."""

TABLE: ControlTable = compose(OWNERS, COMMANDS, READINGS, GROUPS)


def start_values(values: Mapping[str, Any]) -> Snapshot:
    """The snapshot in force at the start: the defaults, with these valid values of controls in their place."""
    return Snapshot(owner() for owner in OWNERS).replaced(values)


if __name__ == "__main__":
    print(markdown(TABLE), end="")
