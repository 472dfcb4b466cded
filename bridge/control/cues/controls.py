"""The controls, commands and readings of the cue list. `bridge.control.cues.service` obeys them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from engine.control import NEVER, Command, Kind, Reading, live

GROUP = "Cues"


class State(enum.StrEnum):
    """What the list does."""

    EMPTY = "empty"
    GO = "go"
    """It waits for GO."""
    WAIT = "wait"
    """The next cue begins by itself."""
    BEAT = "beat"
    """A cue begins at the next moment of snap."""
    PAUSED = "paused"
    END = "end"
    """There is no next cue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CueControls:
    """The recording of cues."""

    cue_capture: bool = live(
        False,
        "/cue/capture",
        "While it is on, what you play becomes cues: snapshots, prompts, and values where they come to rest. Switched "
        "off, they are appended to the list.",
        group=GROUP,
        label="Capture",
        stored=NEVER,
    )


def _command(name: str, address: str, label: str, help: str, *arguments: tuple[str, str, bool]) -> Command:
    return Command(name, address, arguments, GROUP, label, help)


_NUMBER = ("number", "i", True)

GO_ON = _command("cue_go", "/cue/go", "GO", "Begin the next cue; one that waits for the beat begins at once.")
BACK = _command("cue_back", "/cue/back", "Back", "Begin the cue before the present one again.")
JUMP = _command("cue_jump", "/cue/jump", "Jump to", "Begin the cue of this name or number.", ("target", "*", True))
PAUSE = _command("cue_pause", "/cue/pause", "Pause", "Let waits and glides stand still, or go on.")
STOP = _command("cue_stop", "/cue/stop", "Stop", "Nothing begins by itself until GO; what glides stays where it is.")
ADD = _command("cue_add", "/cue/add", "Add", "Add the present look as a cue, with this name.", ("text", "s", False))
REMOVE = _command("cue_remove", "/cue/remove", "Remove", "Remove a cue.", _NUMBER)
MOVE = _command("cue_move", "/cue/move", "Move", "Give a cue another place.", _NUMBER, ("place", "i", True))
NAME = _command("cue_name", "/cue/name", "Name", "Give a cue another name.", _NUMBER, ("text", "s", True))
WAIT = _command(
    "cue_wait",
    "/cue/wait",
    "Wait of",
    "How long after the begin of a cue the next one begins: 2.5 s, 8 beats, 4 bars, GO, or follow: after its glide.",
    _NUMBER,
    ("length", "s", True),
)
GLIDE = _command(
    "cue_glide",
    "/cue/glide",
    "Glide of",
    "How long the values of a cue take: 2.5 s, 8 beats or 4 bars.",
    _NUMBER,
    ("length", "s", True),
)
LOOP = _command(
    "cue_loop", "/cue/loop", "Loop", "Whether the first cue comes after the last one: 1 or 0.", ("on", "i", True)
)
UNDO = _command("cue_undo", "/cue/undo", "Undo", "Take back the last change of the cue list in this Tidecast.")

COMMANDS = (GO_ON, BACK, JUMP, PAUSE, STOP, ADD, REMOVE, MOVE, NAME, WAIT, GLIDE, LOOP, UNDO)

READINGS = (
    Reading("cue", "/status/cue", Kind.TEXT, "", "The present cue; empty before the first."),
    Reading("cue_number", "/status/cue/number", Kind.INT, "", "Its number; 0 before the first."),
    Reading("cue_next", "/status/cue/next", Kind.TEXT, "", "The next cue; empty at the end."),
    Reading("cue_next_number", "/status/cue/next/number", Kind.INT, "", "Its number; 0 at the end."),
    Reading("cue_remaining", "/status/cue/remaining", Kind.FLOAT, "", "Until it begins, in seconds or beats."),
    Reading("cue_unit", "/status/cue/unit", Kind.TEXT, "", "What that is counted in: s or beats; empty for GO."),
    Reading("cue_count", "/status/cue/count", Kind.INT, "", "How many cues there are."),
    Reading("cue_state", "/status/cue/state", Kind.TEXT, "", "What the list does: one of " + ", ".join(State) + "."),
)
