"""A monitor's picture, through FFmpeg's drivers: x11grab (Linux with X11), gdigrab (Windows), avfoundation (macOS).

`screen:` is the whole first screen. On Linux a display can follow (`screen::1.0+100,200`: display :1, from that
corner on), on Windows a window's title (`screen:title=Notepad`), on macOS the screen's number (`screen:1`).
"""

from __future__ import annotations

import os
import sys

from bridge.video.base import Options, SourceInfo
from bridge.video.devices.live import Device, LiveSource, wishes
from engine.errors import TransportError


def require() -> None:
    """Raise a `TransportError` where no screen can be captured."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        raise TransportError(
            "There is no X11 display to capture.", "Start this inside a desktop session, or set DISPLAY."
        )


def source(name: str, options: Options) -> LiveSource:
    """A screen, or the part or window that the name tells."""
    require()
    rate = wishes(0, 0, float(options.fps or 30))
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
