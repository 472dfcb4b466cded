"""`TABLE`, the table of all controls, commands and readings, composed from the classes that declare them (the owners).

OSC, OSCQuery, MIDI, the control room, the TouchDesigner component, the command line and the documents are all built
from this table. To add a control, add a field to its owner; to add an owner, list it here.
`python -m bridge.table` prints the table as Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.audio import controls as audio
from bridge.control import snapshot_commands
from bridge.control.cues import controls as cues
from bridge.control.document import markdown
from bridge.control.midi.input import LEARN
from bridge.control.midi.switch import SWITCH_ON
from bridge.control.modulation import controls as modulation
from bridge.control.osc.server import HEARTBEAT, INPUTS, RESEND, SUBSCRIBE
from bridge.control.quit import QUIT
from bridge.control.store import PING
from bridge.control.table import ControlTable, compose
from bridge.control.tempo import controls as tempo
from bridge.control.values import Snapshot
from bridge.pipeline import readings
from bridge.pipeline.canvas.size import CanvasControls
from bridge.pipeline.input_controls import InputControls
from bridge.pipeline.panic import PanicControls
from bridge.pipeline.stages.base import StageRow
from bridge.pipeline.stages.compare import CompareControls
from bridge.pipeline.stages.table import STAGES
from bridge.process.engine.choice import EngineControls
from bridge.video.files.record_controls import RECORDED, RECORDING, RecordControls
from engine.controls import IN_FORCE, STAGE_TIMES, Controls

GROUPS = (
    *("Prompts", "Stream", "Panic", "Tempo", "Audio", "Cues", "Modulation"),
    *("Video", "Latency", "Recording", "Mask", "LoRA"),
)
"""The order in which generated pages show the groups of controls."""

COMMANDS = (
    *tempo.COMMANDS,
    *audio.COMMANDS,
    *modulation.COMMANDS,
    *snapshot_commands.COMMANDS,
    *cues.COMMANDS,
    *(LEARN, SWITCH_ON, SUBSCRIBE, RESEND, INPUTS, QUIT, PING),
)
"""Commands that are not methods of an owner, because they do more than change controls."""


def table_of(stages: Sequence[StageRow]) -> ControlTable:
    """The table of a bridge with these stages.

    Raises:
        ValueError: if a name or an address is used twice.
    """
    stage_owners: tuple[type[Any], ...] = tuple(
        dict.fromkeys(row.controls for row in stages if row.controls is not None)
    )
    # Within a group, controls are shown in the order of their owners.
    owners: tuple[type[Any], ...] = (
        Controls,
        *stage_owners,
        CompareControls,
        PanicControls,
        tempo.TempoControls,
        audio.AudioControls,
        cues.CueControls,
        modulation.ModulationControls,
        InputControls,
        CanvasControls,
        EngineControls,
        RecordControls,
    )
    stage_readings = [reading for row in stages for reading in (row.cost, *row.readings)]
    # Errors are not readings: they are sent to `/error` (address or topic, reason) when they occur.
    reported = (
        *readings.PERFORMANCE,
        *STAGE_TIMES,
        *stage_readings,
        *readings.DROPS,
        *IN_FORCE,
        *readings.NAMES,
        *tempo.READINGS,
        *audio.READINGS,
        *cues.READINGS,
        *modulation.readings_of(owners),
        RECORDING,
        RECORDED,
        HEARTBEAT,
    )
    return compose(owners, COMMANDS, reported, GROUPS)


TABLE: ControlTable = table_of(STAGES)


def start_values(values: Mapping[str, Any], table: ControlTable = TABLE) -> Snapshot:
    """The snapshot in force at the start: `values`, which must be valid, and the defaults of all other controls."""
    return Snapshot(owner() for owner in table.owners).replaced(values)


if __name__ == "__main__":
    print(markdown(TABLE), end="")
