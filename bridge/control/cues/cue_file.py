"""The TOML file of a cue list. Whoever writes it holds the lock of its folder (`bridge.control.files.locked`)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import tomli_w

from bridge.control.cues.cue_list import EMPTY, CueError, CueList, parsed
from bridge.control.files import signature, write_atomically
from bridge.control.table import ControlTable

MAX_BYTES = 1024 * 1024
"""Most bytes of a file."""


class CueFile:
    """One file, as this Tidecast has last read or written it. Belongs to one thread at a time.

    Args:
        path: the file.
        table: every control; the values of the cues are checked by it.
    """

    def __init__(self, path: Path, table: ControlTable) -> None:
        self.path = path
        self._table = table
        self._seen: tuple[int, ...] = ()

    def changed(self) -> bool:
        """Whether the file was replaced or removed since it was last read or written."""
        return signature(self.path) != self._seen

    def read(self) -> CueList | None:
        """The list of the file; None if there is no file. The same file is not reported as changed again.

        Raises:
            CueError: if the file cannot be read or is not valid; names file, cue and key.
        """
        self._seen = signature(self.path)
        try:
            with open(self.path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CueError(f"{self.path} cannot be read ({error.strerror}).") from error
        if len(data) > MAX_BYTES:
            raise CueError(f"{self.path} is too large: a cue list has {MAX_BYTES:,} bytes at most.")
        try:
            content = tomllib.loads(data.decode())
        except (ValueError, RecursionError) as error:  # TOML or UTF-8
            raise CueError(f"{self.path}: not valid TOML: {error}.", "Correct that line.") from None
        try:
            return parsed(content, self._table)
        except CueError as error:
            raise CueError(f"{self.path}: {error.message}", error.remedy) from None

    def write(self, cues: CueList) -> bool:
        """Replace the file. Returns whether somebody else had changed it since it was last read or written.

        Raises:
            CueError: if the list is too large; the old file is unchanged.
            OSError: if the file cannot be written; the old file is unchanged.
        """
        data = as_toml(cues)
        replaced = self.changed() and self.path.exists()
        write_atomically(self.path, data)
        self._seen = signature(self.path)
        return replaced


def as_toml(cues: CueList) -> bytes:
    """The list as a file.

    Raises:
        CueError: if it would have more than `MAX_BYTES`.
    """
    data = tomli_w.dumps(cues.rows()).encode() if cues != EMPTY else b""
    if len(data) > MAX_BYTES:
        raise CueError(f"The cue list has {len(data):,} bytes; a file may have {MAX_BYTES:,}.", "Remove cues first.")
    return data
