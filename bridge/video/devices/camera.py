"""Cameras and capture cards, through FFmpeg's drivers: v4l2 (Linux), dshow (Windows), avfoundation (macOS).

`camera:` is the first camera, `camera:1` the second, `camera:NAME` the one with that name, `camera:/dev/video2` the one
with that device file.
"""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path

import av

from bridge.video.base import Options, SourceInfo
from bridge.video.devices.live import Device, LiveSource
from bridge.video.files.decode import Failure
from engine.errors import TransportError

NONE = "Plug one in and allow this program to use it."
NOT_LISTED = {
    "win32": f"{NONE} On a computer without a microphone cameras cannot be listed: write camera:NAME, with the name "
    "that Windows' settings show."
}
"""What to do on a system where a camera may be there although none is listed."""

_SYSFS = Path("/sys/class/video4linux")


def devices() -> list[tuple[str, str]]:
    """(name for the driver, name for users) of every camera."""
    if sys.platform.startswith("linux"):
        return _linux_devices()
    driver = _driver()
    try:
        found = av.enumerate_input_devices(driver)
    except Failure as error:
        if driver == "dshow" and isinstance(error, OSError) and error.errno == errno.EIO:
            return []  # its answer where Windows has no camera, and also where it has no microphone
        raise TransportError(f"Cameras cannot be listed: {error}.", "Allow this program to use the camera.") from error
    cameras = [
        device for device in found if "video" in device.media_types and "screen" not in device.description.lower()
    ]
    return [(device.name, device.description or device.name) for device in cameras]


def _linux_devices() -> list[tuple[str, str]]:
    """The capture devices: of the several device files of one camera, the one with index 0."""
    found = []
    for folder in _SYSFS.glob("video*"):
        index = (folder / "index").read_text().strip() if (folder / "index").exists() else "0"
        if index == "0":
            number = int(re.sub(r"\D", "", folder.name) or 0)
            found.append((number, f"/dev/{folder.name}", (folder / "name").read_text().strip()))
    return [(path, name) for _, path, name in sorted(found)]


def _driver() -> str:
    if sys.platform == "win32":
        return "dshow"
    return "avfoundation" if sys.platform == "darwin" else "v4l2"


def choose(name: str) -> tuple[str, str]:
    """The camera with this name, number or device file, as (name for the driver, name for users).

    Raises:
        TransportError: there is no such camera; the remedy lists the existing ones.
    """
    if name.startswith("/dev/"):
        return name, name
    found = devices()
    for number, (url, title) in enumerate(found):
        if name in ("", str(number)) or name.casefold() == title.casefold():
            return url, title
    for url, title in found:
        if name.casefold() in title.casefold():
            return url, title
    if not found and sys.platform == "win32" and name and not name.isdigit():
        return name, name  # without a microphone, Windows' driver opens cameras but lists none
    there = ", ".join(f"{number} ({title})" for number, (_, title) in enumerate(found))
    raise TransportError(
        f"There is no camera {name!r}." if name else "There is no camera.",
        f"Choose one of {there}." if found else NOT_LISTED.get(sys.platform, NONE),
    )


def source(name: str, options: Options) -> LiveSource:
    """A camera by name, number or device file."""
    url, title = choose(name)
    driver = _driver()
    if driver == "dshow":
        url = f"video={url}"
    elif driver == "avfoundation":
        url = f"{url}:none"
    # No size is requested: cameras have only certain sizes and may refuse others. The picture is fitted later anyway.
    rate = {"framerate": f"{float(options.fps):g}"} if options.fps else {}
    return LiveSource(f"camera:{name}", title, Device(driver, url, rate))


def sources(options: Options) -> list[SourceInfo]:
    """Every camera."""
    return [SourceInfo(f"camera:{title}", title) for _, title in devices()]
