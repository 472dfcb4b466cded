"""What file, camera and screen share: opening with PyAV, its errors as `TransportError`, pictures as arrays."""

from __future__ import annotations

from collections.abc import Mapping

import av
import av.container
import numpy as np
from av.video.reformatter import VideoReformatter

from engine.errors import TransportError
from engine.frame import PixelFormat

Failure = (av.FFmpegError, OSError, ValueError)
"""The exceptions that PyAV raises when something cannot be opened or decoded."""


def open_container(
    url: str,
    what: str,
    driver: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> av.container.InputContainer:
    """Open a file or device that has video.

    Args:
        url: path or device.
        what: what to call it in an error.
        driver: name of the container format or device driver; None detects it.
        options: the driver's options.
        timeout_s: longest wait when opening and reading, in s.

    Raises:
        TransportError: it cannot be opened or has no video.
    """
    try:
        container = av.open(url, format=driver, options=dict(options or {}), timeout=timeout_s)
    except Failure as error:
        raise TransportError(
            f"{what} cannot be opened: {reason(error)}.", "Check the name, and that no other program uses it."
        ) from error
    if not container.streams.video:
        container.close()
        raise TransportError(f"{what} has no video.", "Choose another one.")
    container.streams.video[0].thread_type = "AUTO"
    return container


def reason(error: Exception) -> str:
    """A PyAV error in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.rstrip(".").lower()


class Converter:
    """Converts decoded pictures to arrays. Use it from one thread."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def array(self, picture: av.VideoFrame) -> tuple[np.ndarray, PixelFormat]:
        """RGB pixels, or RGBA if the picture has alpha; rotated upright. The array owns its memory."""
        alpha = any(component.is_alpha for component in picture.format.components)
        name, kind = ("rgba", PixelFormat.RGBA) if alpha else ("rgb24", PixelFormat.RGB)
        pixels = self._scaler.reformat(picture, format=name).to_ndarray()
        quarter_turns = round(picture.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, quarter_turns)), kind
