"""The folders of this machine, for the choice of a file: what is in one, where to start, and where a file may be.

Everything here touches the disk and may take for ever: a drive of the network may be gone. `files.Files` calls it on
threads.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import stat
import string
import sys
from collections.abc import Collection
from dataclasses import dataclass

import platformdirs

from bridge.video.address import MAX_CHARACTERS, parse_uri
from bridge.video.names import FILE_ENDINGS, is_network_path
from engine.controls import LORA_ENDINGS
from engine.errors import ControlError, TransportError

MAX_ENTRIES = 500
"""Most entries of one answer."""

MAX_SCANNED = 20_000
"""Most entries of a folder that are looked at."""

TOPIC = "/api/files"

PRESENT = "Present file"
"""Name of the start place where the present input is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder or a file.

    Attributes:
        name: without its folder.
        path: the whole path.
        kind: "folder", "file", or "broken" for a link to nothing.
        link: whether it is a symbolic link; `kind` is that of what it leads to.
        size: bytes of a file; None for anything else, and when it is not known.
    """

    name: str
    path: str
    kind: str
    link: bool = False
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in a folder.

    Attributes:
        folder: its path, absolute.
        parent: the path of the folder that it is in; empty at the top.
        entries: folders, then the files of the wanted kind, by name; `MAX_ENTRIES` at most.
        cut: whether there are more.
        places: where to start.
    """

    folder: str
    parent: str
    entries: tuple[Entry, ...]
    cut: bool
    places: tuple[Entry, ...]


ENDINGS = {"video": FILE_ENDINGS, "lora": LORA_ENDINGS}
"""Endings of the files that are shown, by what is chosen: something to play, or a LoRA."""


def list_folder(folder: str, find: str = "", present: str = "", kind: str = "video") -> Listing:
    """What is in a folder. Hidden files, and those of another kind, are left out.

    Args:
        folder: its path, also with `~`; empty for a start place: that of the present file, else the user's videos, else
            home; for LoRAs the downloads, else home.
        find: only names that hold this text, in any case.
        present: the address of the present input.
        kind: one of `ENDINGS`.

    Raises:
        ControlError: it is on another machine, is no folder, or cannot be read, or there is no such kind.
    """
    if kind not in ENDINGS:
        raise ControlError(TOPIC, f"{kind[:60]!r} is no kind of file.", f"Use one of {', '.join(ENDINGS)}.")
    starts = places(present)
    path = local_path(folder) if folder else _first_place(starts, kind)
    found: list[Entry] = []
    try:
        with os.scandir(path) as entries:
            wanted = find.casefold()
            for entry in itertools.islice(entries, MAX_SCANNED):
                if wanted in entry.name.casefold() and (made := _entry(entry, ENDINGS[kind])) is not None:
                    found.append(made)
            more = next(entries, None) is not None
    except FileNotFoundError:
        raise ControlError(TOPIC, f"There is no folder {path!r}.", "Choose another one.") from None
    except NotADirectoryError:
        raise ControlError(TOPIC, f"{path!r} is no folder.", "Choose the folder that it is in.") from None
    except PermissionError:
        raise ControlError(TOPIC, f"The folder {path!r} may not be read.", "Choose another one.") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ControlError(TOPIC, f"The folder {path!r} cannot be read: {why}.", "Choose another one.") from None
    found.sort(key=lambda entry: (entry.kind != "folder", entry.name.casefold()))
    shown = tuple(_sized(entry) for entry in found[:MAX_ENTRIES])
    parent = os.path.dirname(path)
    return Listing(path, "" if parent == path else parent, shown, more or len(found) > len(shown), starts)


def find_file(name: str, size: int, folder: str = "", present: str = "") -> str:
    """The path of the file of this name and size in `folder` or one of the start places, not below them; or empty.

    Raises:
        ControlError: it is no name of a video or picture file.
    """
    separators = "/\\:" if sys.platform == "win32" else "/"
    if not name or len(name) > MAX_CHARACTERS or any(c in separators or ord(c) < 32 for c in name):
        raise ControlError(TOPIC, f"{name[:60]!r} is no name of a file.", "Drop one file, no folder.")
    if not _ending_fits(name, FILE_ENDINGS):
        raise ControlError(TOPIC, f"{name[:60]!r} is neither a video nor a picture.", f"Drop a {_ENDINGS} file.")
    folders = [place.path for place in places(present)]
    for start in ([local_path(folder)] if folder else []) + folders:
        path = os.path.join(start, name)
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(found.st_mode) and found.st_size == size:
            return path
    return ""


def local_path(folder: str) -> str:
    """The absolute path of a folder on this machine. Touches neither disk nor network.

    Raises:
        ControlError: it is on another machine, or no path.
    """
    path = os.path.abspath(os.path.expanduser(folder.strip()))
    if is_network_path(folder.strip()) or is_network_path(path):
        raise ControlError(
            TOPIC,
            f"{folder[:100]!r} is on another machine, which only the command line and the configuration may name.",
            "Choose a folder of this machine, or start Tidecast with --input and the address of the file.",
        )
    if len(path) > MAX_CHARACTERS or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise ControlError(TOPIC, f"{folder[:60]!r} is no path of a folder.", "Choose another one.")
    return path


def places(present: str = "") -> tuple[Entry, ...]:
    """Where to start: home, videos, desktop, downloads, drives (Windows), and last the folder of the present file."""
    usual = [
        ("Videos", platformdirs.user_videos_dir()),
        ("Desktop", platformdirs.user_desktop_dir()),
        ("Downloads", platformdirs.user_downloads_dir()),
    ]
    named = [
        ("Home", os.path.expanduser("~")),
        *((name, path) for name, path in usual if _is_folder(path)),
        *((drive, drive) for drive in _drives()),  # not looked at, nor the next one: they may be gone, and not answer
        (PRESENT, _folder_of(present)),
    ]
    return tuple(Entry(name, path, "folder") for name, path in named if path and _printable(path))


def _first_place(starts: tuple[Entry, ...], kind: str) -> str:
    """The best of the start places."""
    by_name = {place.name: place.path for place in starts}
    best = (PRESENT, "Videos", "Home") if kind == "video" else ("Downloads", "Home")
    return next((by_name[name] for name in best if name in by_name), os.path.abspath(os.sep))


def _drives() -> list[str]:
    if sys.platform != "win32":
        return []
    present = ctypes.windll.kernel32.GetLogicalDrives()  # one bit for each letter; does not wait for any drive
    return [f"{letter}:\\" for at, letter in enumerate(string.ascii_uppercase) if present >> at & 1]


def _folder_of(present: str) -> str:
    """The folder of a file on this machine that is the input; empty for anything else."""
    try:
        scheme, name = parse_uri(present)
        return os.path.dirname(local_path(name)) if scheme == "file" and name else ""
    except (TransportError, ControlError):
        return ""


def _is_folder(path: str) -> bool:
    try:
        return os.path.isdir(path)
    except (OSError, ValueError):
        return False


def _printable(text: str) -> bool:
    """Whether it can be sent: a name may hold bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_ENDINGS = ", ".join(FILE_ENDINGS)


def _ending_fits(name: str, endings: Collection[str]) -> bool:
    return name.rpartition(".")[2].lower() in endings


def _entry(entry: os.DirEntry[str], endings: Collection[str]) -> Entry | None:
    """A folder, or a file of which the name fits; else None."""
    if entry.name.startswith(".") or not _printable(entry.path):
        return None
    try:
        link = entry.is_symlink()
        if entry.is_dir():
            return Entry(entry.name, entry.path, "folder", link)
        if not _ending_fits(entry.name, endings):
            return None
        if entry.is_file():
            return Entry(entry.name, entry.path, "file", link)
    except OSError:  # a link that leads in a circle, or a drive that is gone
        return Entry(entry.name, entry.path, "broken", link=True)
    return Entry(entry.name, entry.path, "broken", link) if link else None


def _sized(entry: Entry) -> Entry:
    if entry.kind != "file":
        return entry
    try:
        size = os.stat(entry.path).st_size
    except OSError:
        return entry
    return Entry(entry.name, entry.path, entry.kind, entry.link, size)
