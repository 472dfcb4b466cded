"""The commands of snapshots. `bridge.control.snapshots` carries them out."""

from __future__ import annotations

from engine.control import PREFIX, Command
from engine.errors import ControlError

FIRST, LAST = 1, 64
"""Range of the numbers."""

COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
"""The colours that a snapshot may have."""

SAVE = Command(
    "snapshot_save",
    "/snapshot/save",
    (("number", "i", True), ("with", "s", False)),
    "Snapshots",
    "Save",
    "Store the look under a number from 1 to 64, in a file that survives a restart; `with` adds what is named of "
    "input, seed, latency, tempo, modulation and recording. Bypass, freeze and black are never stored.",
)
RECALL = Command(
    "snapshot_recall",
    "/snapshot/recall",
    (("number", "i", True), ("seconds", "f", False)),
    "Snapshots",
    "Recall",
    "Recall a stored snapshot, gliding over the seconds.",
)
DELETE = Command(
    "snapshot_delete",
    "/snapshot/delete",
    (("number", "i", True),),
    "Snapshots",
    "Delete",
    "Delete a stored snapshot; /snapshot/undo brings it back.",
)
NAME = Command(
    "snapshot_name",
    "/snapshot/name",
    (("number", "i", True), ("text", "s", True)),
    "Snapshots",
    "Name",
    "Give a stored snapshot a name of up to 40 characters; an empty text takes it away.",
)
COLOR = Command(
    "snapshot_color",
    "/snapshot/color",
    (("number", "i", True), ("hue", "s", True)),
    "Snapshots",
    "Colour",
    f"Give a stored snapshot a colour ({', '.join(COLORS)}); an empty text takes it away.",
)
UNDO = Command(
    "snapshot_undo",
    "/snapshot/undo",
    (),
    "Snapshots",
    "Undo",
    "Take back the last save, deletion, name or colour of a snapshot, or the opening of a show, in this Tidecast.",
)

COMMANDS = (SAVE, RECALL, DELETE, NAME, COLOR, UNDO)


def check(command: Command, number: int) -> None:
    """Check the number of a snapshot.

    Raises:
        ControlError: if it is not in 1..64; names the command.
    """
    if not FIRST <= number <= LAST:
        raise ControlError(PREFIX + command.address, f"{number} is not the number of a snapshot ({FIRST} to {LAST}).")
