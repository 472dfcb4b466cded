"""The show of a state folder, for a Tidecast that does not run. One that does, or a second one, reads the new files
within a second."""

from __future__ import annotations

from pathlib import Path

from bridge.control.cues.cue_file import CueFile
from bridge.control.files import locked, write_atomically
from bridge.control.midi import bindings
from bridge.control.stored.storage import SnapshotFile
from bridge.control.table import ControlTable
from bridge.show.show_file import Show, ShowError, pack, unpack
from engine.errors import TidecastError

SNAPSHOTS, BINDINGS, CUES, SESSION = "snapshots.json", "midi.toml", "cues.toml", "session.json"
"""Names of the files in a state folder: of a show, and (the last one) of what a restart brings back."""


def save(folder: Path, table: ControlTable) -> tuple[bytes, Show]:
    """The show of a folder as a file; without values of controls, which only a running Tidecast has.

    Raises:
        TidecastError: if a file cannot be read or is damaged, or the show is too large.
    """
    show = Show(_read(folder)[1], bindings.load(folder / BINDINGS, table), cues=_cues(folder, table).read())
    return pack(show, table), show


def open_show(folder: Path, data: bytes, table: ControlTable) -> tuple[Show, Path | None]:
    """Replace the snapshots, bindings and cues of a folder by those of a show file.

    Returns:
        The show, and the file that keeps what was replaced; None if there was nothing.

    Raises:
        TidecastError: if the show is not valid, or a file cannot be read or written; nothing was changed.
    """
    show = unpack(data, table)
    path = folder / SNAPSHOTS
    try:
        with locked(path):
            file, stored = _read(folder)
            before, cues = bindings.load(folder / BINDINGS, table), _cues(folder, table)
            listed = cues.read()
            kept = None
            if stored or listed is not None or (folder / BINDINGS).exists():
                kept = _free_name(folder)
                write_atomically(kept, pack(Show(stored, before, cues=listed), table))
            file.write(show.snapshots)
            try:
                if show.cues is not None:
                    cues.write(show.cues)
                bindings.save(folder / BINDINGS, show.bindings)
            except TidecastError:
                file.write(stored)
                if listed is not None:
                    cues.write(listed)
                raise
    except OSError as error:
        raise ShowError(f"{folder} cannot be written ({error.strerror}).", "Nothing was imported.") from error
    return show, kept


def _read(folder: Path) -> tuple[SnapshotFile, dict[int, dict[str, object]]]:
    """The file of snapshots, which keeps what a newer version has put into it, and the snapshots."""
    damaged: list[str] = []
    path = folder / SNAPSHOTS
    file = SnapshotFile(path, lambda topic, reason: damaged.append(reason))
    try:
        found = file.read()
    except OSError as error:
        raise ShowError(f"{path} cannot be read ({error.strerror}).") from error
    if damaged:
        raise ShowError(damaged[0], "Mend it and rename it back, or run this again to go on without it.")
    return file, found or {}


def _cues(folder: Path, table: ControlTable) -> CueFile:
    return CueFile(folder / CUES, table)


def _free_name(folder: Path) -> Path:
    number = 1
    while (path := folder / f"replaced-{number}.tidecast").exists():
        number += 1
    return path
