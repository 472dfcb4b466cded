"""A monitor's picture, through FFmpeg's drivers: x11grab (Linux with X11), gdigrab (Windows), avfoundation (macOS).

`screen:` is the whole first screen. On Linux the name can be a display (`screen::1.0+100,200`: display :1, from that
corner on), on Windows a window's title (`screen:title=Notepad`), on macOS the screen's number (`screen:1`).
"""

from __future__ import annotations

import os
import sys

from bridge.video.base import DEFAULT_FPS, Options, SourceInfo
from bridge.video.devices.live import Device, LiveSource
from engine.errors import TransportError


def require() -> None:
    """Raise a `TransportError` if no screen can be captured on this machine."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        raise TransportError(
            "There is no X11 display to capture.", "Start this inside a desktop session, or set DISPLAY."
        )


def source(name: str, options: Options) -> LiveSource:
    """A screen, or the part of it or the window that the name selects."""
    require()
    rate = {"framerate": f"{float(options.fps or DEFAULT_FPS):g}"}
    if sys.platform == "win32":
        device = Device("gdigrab", name or "desktop", rate)
    elif sys.platform == "darwin":
        device = Device("avfoundation", f"Capture screen {name or 0}:none", {**rate, "capture_cursor": "1"})
    else:
        device = Device("x11grab", name or os.environ["DISPLAY"], rate)
    return LiveSource(f"screen:{name}", f"Screen {name}".strip(), device)


def sources(options: Options) -> list[SourceInfo]:
    """The first screen."""
    return [SourceInfo("screen:", "Screen")]
