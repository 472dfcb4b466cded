"""Which names an input or output of a transport can have, judged by their characters alone.

Names come from anybody who may send controls, so nothing here touches the disk, the network or the user database:
looking up a path such as `\\\\host\\share` would already connect to that host.
"""

from __future__ import annotations

import re
import sys

from engine.errors import TransportError

MAX_FILE_NAME = 255
"""Longest name of one file or folder: bytes on Linux, UTF-16 units on Windows and macOS."""

MAX_SPOUT_NAME = 200
"""Longest name of a Spout sender, in bytes. Spout's library keeps it in 256 bytes with endings of its own."""

LARGEST_DISPLAY = 64
"""Largest number of a display."""

PATTERN_NAMES = ("bars", "counter", "waves", "dance")
"""The test pictures."""

FILE_ENDINGS = (
    *("mp4", "mov", "m4v", "mkv", "webm", "avi", "mpg", "mpeg", "mxf", "gif"),
    *("png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff"),
)
"""How the names of video and picture files end that are offered to people; `file:` opens whatever FFmpeg can read."""

_CAMERA_FILE = re.compile(r"/dev/(video\d+|v4l/by-(id|path)/[^/]+)")


def check_path(name: str) -> None:
    """Refuse a path that no file system can hold.

    Raises:
        TransportError: it is empty, or a part of it is too long.
    """
    if not name:
        raise TransportError("file: needs a path.", "Write it as file:/path/to/clip.mp4")
    on_linux = sys.platform.startswith("linux")
    for part in re.split(r"[/\\]" if sys.platform == "win32" else "/", name):
        size = len(part.encode()) if on_linux else len(part.encode("utf-16-le")) // 2
        if size > MAX_FILE_NAME:
            unit = "bytes" if on_linux else "characters"
            raise TransportError(
                f"The file name {part[:40]!r}... has {size} {unit}.", f"A file name has {MAX_FILE_NAME} at most."
            )


def is_network_path(name: str) -> bool:
    """Whether a path names a machine, as `\\\\host\\share` and `//host/share` do, or a device (`\\\\.\\pipe\\x`).

    Such paths exist on Windows only; they are recognised everywhere. On other systems `///tmp/x` is a file of this
    machine, as in a URL.
    """
    if not (len(name) > 1 and name[0] in "\\/" and name[1] in "\\/"):
        return False
    return sys.platform == "win32" or not name.startswith("///")


def check_camera(name: str) -> None:
    """Refuse a device file that is not a camera's: to open another device could, for instance, restart the machine.

    Raises:
        TransportError: it is another file.
    """
    if name.startswith("/") and _CAMERA_FILE.fullmatch(name) is None:
        raise TransportError(
            f"{name[:60]!r} is not the device file of a camera.",
            "Write camera:/dev/video0, or the camera's number or name.",
        )


def check_pattern(name: str) -> None:
    """Refuse the name of a test picture that does not exist.

    Raises:
        TransportError: there is no such picture; the remedy lists them.
    """
    if name and name not in PATTERN_NAMES:
        raise TransportError(f"There is no test picture {name[:60]!r}.", f"Choose one of {', '.join(PATTERN_NAMES)}.")


def check_spout(name: str) -> None:
    """Refuse the name of a Spout sender that Spout's library cannot hold: a longer one makes it end the whole program.

    Raises:
        TransportError: it is too long, or holds control characters, at which the library would cut it.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > MAX_SPOUT_NAME:
        raise TransportError(
            f"The name {name[:40]!r}... of a Spout sender has {size} bytes.", f"It can have {MAX_SPOUT_NAME} at most."
        )
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise TransportError(f"The name {name!r} of a Spout sender holds control characters.", "Remove them.")


def check_window(name: str) -> None:
    """Refuse what is neither empty (an ordinary window) nor the number of a display.

    Raises:
        TransportError: it is something else.
    """
    if name and not (name.isascii() and name.isdecimal() and 1 <= int(name[:4]) <= LARGEST_DISPLAY and len(name) <= 4):
        raise TransportError(
            f"window:{name[:40]} names no display.",
            "Write window:1 for the main display, window:2 for the next, or window: for an ordinary window.",
        )


def is_remote_display(name: str) -> bool:
    """Whether the name of a screen is a display of X11 with a host, as `HOST:0` or `tcp/HOST:0`.

    A display of this machine is `:0`, and may be followed by a corner (`:0.0+10,20`). On Windows and macOS a name is a
    window's title or a number, and never a host.
    """
    return sys.platform.startswith("linux") and name != "" and name[0] not in ":+"
