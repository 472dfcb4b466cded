"""The two frame rings of the person mask: small input frames to the engine process, and their masks back.

They are rings of their own, so that a mask comes for every input frame as soon as it is computed, also while a chunk of
the model takes longer than several frames.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from engine.frame import Frame

MASK_SIZE = (256, 144)
"""Width and height of a mask and of the picture that it is made of, in pixels: the one size of the network."""

METADATA_BYTES = 96
"""Longest metadata of a frame; the mask comes back with them."""

INBOX_DEPTH, OUTBOX_DEPTH = 2, 8


@dataclass(frozen=True, slots=True)
class MaskEnds:
    """The ends of the rings that an engine process uses, as an argument of it."""

    inbox: RingReader
    outbox: RingWriter


class MaskRings:
    """The rings, with the bridge's ends of them. One thread puts frames, one takes masks.

    Raises:
        SharedMemoryError: if there is not enough memory.
        OSError: if this process has too many open files.
    """

    def __init__(self) -> None:
        width, height = MASK_SIZE
        with contextlib.ExitStack() as opened:
            inbox = opened.enter_context(FrameRing(width, height, INBOX_DEPTH, metadata_bytes=METADATA_BYTES))
            outbox = opened.enter_context(FrameRing(width, height // 3, OUTBOX_DEPTH, metadata_bytes=METADATA_BYTES))
            self._writer: RingWriter = opened.enter_context(inbox.writer())
            self._reader: RingReader = opened.enter_context(outbox.reader())
            for end in (self._writer, self._reader):
                end.pending  # noqa: B018 (maps the memory now: later there may be no descriptor left)
            self._inbox, self._outbox = inbox, outbox
            self._opened = opened.pop_all()
        self._putting, self._taking = threading.Lock(), threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def ends(self) -> Iterator[MaskEnds]:
        """The ends for one engine process; this process's handles of them are closed at the end."""
        with self._inbox.reader() as reader, self._outbox.writer() as writer:
            yield MaskEnds(reader, writer)

    def put(self, frame: Frame) -> None:
        """Queue a frame of `MASK_SIZE` for the engine process; drops the oldest when the ring is full."""
        with self._putting:
            if not self._closed:
                self._writer.put(frame)

    def take(self) -> list[tuple[Frame, np.ndarray]]:
        """Every mask that has come, oldest first, at most `OUTBOX_DEPTH`: a frame with its times and metadata, and the
        mask, uint8 [height, width]."""
        found: list[tuple[Frame, np.ndarray]] = []
        with self._taking:
            while not self._closed and len(found) < OUTBOX_DEPTH and (frame := self._reader.get(0.0)) is not None:
                found.append((frame, unpacked(frame)))
        return found

    def close(self) -> None:
        """Release the memory; idempotent."""
        with self._putting, self._taking:
            self._closed = True
            self._opened.close()


def packed(mask: np.ndarray) -> np.ndarray:
    """A mask [height, width] as the pixels of a ring, which have three bytes: uint8 [height / 3, width, 3]."""
    height, width = mask.shape
    return np.ascontiguousarray(mask).reshape(height // 3, width, 3)


def unpacked(frame: Frame) -> np.ndarray:
    """The mask that was `packed` into a frame."""
    return frame.pixels.reshape(3 * frame.height, frame.width)
