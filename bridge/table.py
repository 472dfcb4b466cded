"""The table of everything that can be changed, asked or read, composed from the owners: `TABLE`.

OSC, OSCQuery, MIDI, the control room, the TouchDesigner component, the command line and the documents are given this
table and show all of it. To add a control, add a field to its owner; to add an owner, name it here.
`python -m bridge.table` prints the table as Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from bridge.pipeline.stages.base import StageRow
from bridge.pipeline.stages.table import STAGES
from bridge.video.files.record_controls import RECORDING, RecordControls
from engine.controls import IN_FORCE, STAGE_TIMES, Controls

GROUPS = ("Prompts", "Stream", "Panic", "Video", "Latency", "Recording")
"""The order in which generated pages show the groups of controls."""

COMMANDS = (SAVE, RECALL, LEARN, SUBSCRIBE, RESEND, INPUTS, QUIT, PING)
"""Commands that are carried out by more than a change of controls."""


def table_of(stages: Sequence[StageRow]) -> ControlTable:
    """The table of a bridge that has these stages.

    Raises:
        ValueError: if a name or an address is used twice.
    """
    obeyed_by_stages: tuple[type[Any], ...] = tuple(
        dict.fromkeys(row.controls for row in stages if row.controls is not None)
    )
    # Whoever obeys controls; within a group, their controls are shown in this order.
    owners: tuple[type[Any], ...] = (Controls, *obeyed_by_stages, PanicControls, InputControls, RecordControls)
    of_stages = [reading for row in stages for reading in (row.cost, *row.readings)]
    # Everything that is reported. Errors go out at `/error` (address or topic, reason) when they occur.
    reported = (
        *readings.RATES,
        *STAGE_TIMES,
        *of_stages,
        *readings.DROPS,
        *IN_FORCE,
        *readings.NAMES,
        RECORDING,
        HEARTBEAT,
    )
    return compose(owners, COMMANDS, reported, GROUPS)


TABLE: ControlTable = table_of(STAGES)
OWNERS, READINGS = TABLE.owners, TABLE.readings


def start_values(values: Mapping[str, Any], table: ControlTable = TABLE) -> Snapshot:
    """The snapshot in force at the start: the defaults, with these valid values of controls in their place."""
    return Snapshot(owner() for owner in table.owners).replaced(values)


if __name__ == "__main__":
    print(markdown(TABLE), end="")
