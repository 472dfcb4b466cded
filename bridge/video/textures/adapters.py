"""Graphics adapters of a Windows machine, and what they mean for Spout, which shares pictures on one of them."""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes

SLOW = (
    "Spout copies each picture through main memory, because this graphics adapter cannot share it with OpenGL.",
    "It works and costs some milliseconds a picture. If the machine has a faster adapter, choose that one for Tidecast "
    "and the other program, in Windows' settings for System, Display, Graphics.",
)
"""What it means that Spout falls back to the CPU, and what to do."""

_MIRRORING_DRIVER = 0x8


class _DisplayDevice(ctypes.Structure):
    """DISPLAY_DEVICEW."""

    _fields_ = (
        ("cb", wintypes.DWORD),
        ("DeviceName", wintypes.WCHAR * 32),
        ("DeviceString", wintypes.WCHAR * 128),
        ("StateFlags", wintypes.DWORD),
        ("DeviceID", wintypes.WCHAR * 128),
        ("DeviceKey", wintypes.WCHAR * 128),
    )


def names() -> tuple[str, ...]:
    """The graphics adapters of this machine; none on other systems than Windows."""
    if sys.platform != "win32":
        return ()
    found: dict[str, None] = {}
    device = _DisplayDevice(cb=ctypes.sizeof(_DisplayDevice))
    number = 0
    while ctypes.windll.user32.EnumDisplayDevicesW(None, number, ctypes.byref(device), 0):
        if not device.StateFlags & _MIRRORING_DRIVER:  # such as a remote desktop's
            found[device.DeviceString] = None
        number += 1
    return tuple(found)


def limits(through_memory: bool, adapters: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """What to know about sharing pictures here, each with what to do.

    Args:
        through_memory: whether Spout copies pictures through main memory.
        adapters: names of the graphics adapters.
    """
    found = [SLOW] if through_memory else []
    if len(adapters) > 1:
        found.append(
            (
                f"This machine has {len(adapters)} graphics adapters ({', '.join(adapters)}). Spout shares pictures "
                "only between programs on the same one.",
                f"Set {sys.executable} and the other program to the same adapter, in Windows' settings for System, "
                "Display, Graphics; then start both again.",
            )
        )
    return tuple(found)
