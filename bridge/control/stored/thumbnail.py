"""The small picture of a stored snapshot: made of a frame, and read back from text."""

from __future__ import annotations

import base64
import functools
import io
import logging
import threading

import numpy as np

from engine.frame import Frame

log = logging.getLogger(__name__)

WIDEST = 160
"""Longest side, in pixels."""

MAX_BYTES = 16 * 1024
"""Most bytes of the JPEG."""

LONGEST_TEXT = 4 * ((MAX_BYTES + 2) // 3)
"""Characters of the longest picture in base64."""

QUALITIES = (80, 50)
"""JPEG qualities that are tried in turn until the picture is small enough."""


class Thumbnail:
    """A picture that is encoded later, on another thread than the one that chose the frame.

    Copies of a snapshot share it, so that each of them has the picture once it is encoded.

    Args:
        frame: what it shows. It is let go when the picture is encoded.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame: Frame | None = frame
        self._encoding = threading.Lock()
        self._jpeg: bytes | None = None

    def shows(self, frame: Frame) -> bool:
        """Whether it is to show this very frame; False once it is encoded."""
        return self._frame is frame

    def encode(self) -> None:
        """Encode it; does nothing the second time. A picture that cannot be encoded is left out, and logged."""
        with self._encoding:
            frame, self._frame = self._frame, None
            if frame is None:
                return
            try:
                self._jpeg = encoded(frame) or None
            except Exception:  # a snapshot without a picture is still a snapshot
                log.exception("the picture of a snapshot could not be encoded")

    @property
    def jpeg(self) -> bytes | None:
        """The JPEG; None before it is encoded, and when there is none."""
        return self._jpeg

    @property
    def text(self) -> str:
        """The JPEG in base64, encoded now if it is not yet; empty when there is none."""
        self.encode()
        return base64.b64encode(self._jpeg or b"").decode("ascii")


def encoded(frame: Frame) -> bytes:
    """A frame as a small JPEG; empty if it would have more than `MAX_BYTES`."""
    # Imported here: whoever only lists snapshots needs no image library.
    from PIL import Image

    step = max(1, max(frame.width, frame.height) // (4 * WIDEST))  # what is thrown away need not be converted first
    image = Image.fromarray(np.ascontiguousarray(frame.rgb()[::step, ::step]))
    image.thumbnail((WIDEST, WIDEST), Image.Resampling.BILINEAR)
    for quality in QUALITIES:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        if out.tell() <= MAX_BYTES:
            return out.getvalue()
    return b""


def decoded(text: object) -> bytes | None:
    """The JPEG in what a file holds; None if it is no text, damaged, or larger than it may be."""
    return _checked(text) if isinstance(text, str) and 0 < len(text) <= LONGEST_TEXT else None


@functools.lru_cache(maxsize=256)
def _checked(text: str) -> bytes | None:
    from PIL import Image

    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if max(image.size) > WIDEST:  # known from its head, before any pixel is decoded
                return None
            image.load()
    except Exception:  # Pillow raises many kinds of errors for damaged pictures
        return None
    return data
