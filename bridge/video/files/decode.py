"""What file, camera and screen share: opening with PyAV, its errors as `TransportError`, pictures as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av
import av.container
import numpy as np
from av.video.reformatter import VideoReformatter

from bridge.video.errors import reason
from engine.errors import TransportError
from engine.frame import PixelFormat

MAX_PIXELS = 2**26
"""Largest picture that is decoded, width times height (8192x8192): a larger one could fill the memory."""

Failure = (av.FFmpegError, OSError, ValueError)
"""The exceptions that PyAV raises when something cannot be opened or decoded."""

_LENIENT: Any = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""What lets PyAV open a file whose title is not UTF-8. Newer versions always do, and no longer take the argument."""


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
        TransportError: it cannot be opened, has no video, or its pictures are too large.
    """
    limited = {"max_pixels": str(MAX_PIXELS), **(options or {})}
    try:
        container: av.container.InputContainer = av.open(
            url, format=driver, options=limited, timeout=timeout_s, **_LENIENT
        )
    except Failure as error:
        raise TransportError(
            f"{what} cannot be opened: {reason(error)}.", "Check the name, and that no other program uses it."
        ) from error
    if not container.streams.video:
        container.close()
        raise TransportError(f"{what} has no video.", "Choose another one.")
    stream = container.streams.video[0]
    if stream.width * stream.height > MAX_PIXELS:
        size = f"{stream.width}x{stream.height}"
        container.close()
        raise TransportError(f"{what} has pictures of {size}, which are too large.", "Scale it to 8192x8192 or less.")
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return container


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
