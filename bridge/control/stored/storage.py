"""The JSON file of snapshots. Whoever writes it holds the lock of its folder (`bridge.control.files.locked`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bridge.control.files import set_aside, signature, write_atomically
from bridge.control.stored.content import plain


class SnapshotFile:
    """One file of snapshots, as this Tidecast has last read or written it. Belongs to one thread at a time.

    Args:
        path: the file.
        report: called with (topic, reason) when the file is damaged.
    """

    def __init__(self, path: Path, report: Callable[[str, str], None]) -> None:
        self.path = path
        self._report = report
        self._seen: tuple[int, ...] = ()  # what the file looked like then
        self._rest: dict[str, Any] = {}  # what it holds besides, by a newer version

    def changed(self) -> bool:
        """Whether the file was replaced since it was last read or written."""
        return signature(self.path) != self._seen

    def read(self) -> dict[int, dict[str, Any]] | None:
        """The snapshots of the file; None if there is no file. A damaged file is renamed and reported.

        Raises:
            OSError: if the file cannot be read, or is damaged and cannot be renamed; it must not be replaced then.
        """
        self._seen = signature(self.path)
        self._rest = {}
        try:
            content = json.loads(self.path.read_bytes())
            found = {int(number): dict(values.items()) for number, values in content["snapshots"].items()}
            self._rest = {key: value for key, value in content.items() if key != "snapshots"}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            try:
                aside = set_aside(self.path)
            except OSError as error:
                raise OSError(error.errno, f"it is damaged and cannot be set aside: {error.strerror}") from error
            self._report("snapshots", f"{self.path} is damaged; it was set aside as {aside.name}.")
            return None
        return found

    def write(self, stored: Mapping[int, Mapping[str, Any]]) -> None:
        """Replace the file; what a newer version keeps in it besides the snapshots stays.

        Raises:
            OSError: if that is impossible; the old file is unchanged.
        """
        snapshots = {str(number): plain(stored[number]) for number in sorted(stored)}
        content = {"version": 1, **self._rest, "snapshots": snapshots}
        # A file may hold half a surrogate pair; json reads it as Python does with "surrogatepass".
        write_atomically(self.path, json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))
        self._seen = signature(self.path)
