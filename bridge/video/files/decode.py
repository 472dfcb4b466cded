"""What file, camera and screen share: opening with PyAV, errors in our words, pictures as arrays.

Knows nothing of timing.
"""

from __future__ import annotations

from collections.abc import Mapping

import av
import av.container
import numpy as np
from av.video.reformatter import VideoReformatter

from engine.errors import TransportError
from engine.frame import PixelFormat

Failure = (av.FFmpegError, OSError, ValueError)
"""What PyAV raises when something cannot be opened or decoded (its own errors derive from several built-in ones)."""


def open_container(
    url: str,
    what: str,
    form: str | None = None,
    wishes: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> av.container.InputContainer:
    """Open something that holds video.

    Args:
        url: path or device.
        what: how to call it in an error.
        form: name of the container format or device driver; None finds out.
        wishes: the driver's options.
        timeout_s: longest wait for an answer when opening and reading.

    Raises:
        TransportError: it cannot be opened or holds no video.
    """
    try:
        container = av.open(url, format=form, options=dict(wishes or {}), timeout=timeout_s)
    except Failure as error:
        raise TransportError(
            f"{what} cannot be opened: {reason(error)}.", "Check the name and that it is free."
        ) from error
    if not container.streams.video:
        container.close()
        raise TransportError(f"{what} holds no video.", "Choose another one.")
    container.streams.video[0].thread_type = "AUTO"
    return container


def reason(error: Exception) -> str:
    """A PyAV error in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.rstrip(".").lower()


class Converter:
    """Turns decoded pictures into arrays. Belongs to one thread."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def array(self, picture: av.VideoFrame) -> tuple[np.ndarray, PixelFormat]:
        """RGB pixels, or RGBA when the picture has alpha; turned upright. The array owns its memory."""
        alpha = any(component.is_alpha for component in picture.format.components)
        name, kind = ("rgba", PixelFormat.RGBA) if alpha else ("rgb24", PixelFormat.RGB)
        pixels = self._scaler.reformat(picture, format=name).to_ndarray()
        quarter_turns = round(picture.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, quarter_turns)), kind
