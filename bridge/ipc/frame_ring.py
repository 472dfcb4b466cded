"""Frames between two processes: a bounded ring buffer in shared memory that drops the oldest frame when it is full.

One process writes and one reads; neither can block the other, and either may be killed at any time:

* There is no lock. Every slot holds the number of its frame twice, written before and after the pixels; a reader
  that is overtaken while it copies sees that the number has changed and takes a newer frame instead. Memory barriers
  keep the order of number, frame and number on processors that would change it (`memory_barrier`).
* The reader copies the frame out of the ring. No slot is ever lent to a process, so nothing is lost when that
  process dies, and its successor continues where it stopped: all positions are in the shared memory.
* To wait, the reader blocks on a socket, to which the writer sends one byte for each frame. When the reader is slow
  or dead and the socket's buffer is full, further bytes are left out; `put` never blocks.

The process that creates the `FrameRing` owns the ring and outlives both ends. Ends are passed to other processes as
arguments of a `multiprocessing` process (start method "spawn"; libndi and CUDA do not work after a fork)::

    def engine(inbox: RingReader, outbox: RingWriter) -> None:  # the other process
        while True:
            frame = inbox.get(timeout_s=0.5)  # None: no frame came; EOFError: the owner is gone
            if frame is not None:
                outbox.put(dataclasses.replace(frame, metadata={"controls": "..."}))

    inbox, outbox = FrameRing(640, 480, depth=8), FrameRing(640, 480, depth=8)  # the owner
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=engine, args=(inbox.reader(), outbox.writer()))
    process.start()  # if it dies, start another, again with inbox.reader(), outbox.writer()
    to_engine, from_engine = inbox.writer(), outbox.reader()
    to_engine.put(frame)
    styled = from_engine.get(timeout_s=0.1)
    inbox.close(), outbox.close()  # frees the memory, once the ends are closed too

A reader that only needs the newest frame, such as a preview, uses `depth=1` or `get(..., newest=True)`. To wait for
frames and for messages at once, pass `reader.waitable` to `multiprocessing.connection.wait`, then call `get(0.0)`.
"""

from __future__ import annotations

import socket
import weakref
from typing import Self

from bridge.ipc.ring_ends import RingReader, RingWriter
from bridge.ipc.ring_memory import Layout
from bridge.ipc.shared_block import SharedBlock
from engine.frame import PixelFormat

__all__ = ["METADATA_BYTES", "FrameRing", "RingReader", "RingWriter"]

METADATA_BYTES = 4096
"""Longest metadata of a frame, as JSON."""


class FrameRing:
    """A ring of frame slots, and the owner of its memory.

    All of its memory is reserved here, so that no later `put` can fail for want of it. It is freed when `close` was
    called and the ends are closed, or when their processes have ended, even if they were killed (see `shared_block`).

    Args:
        width, height: size of every frame in pixels.
        depth: frames that can wait before the oldest is dropped.
        metadata_bytes: longest metadata of a frame, as JSON.
        format: RGB or RGBA, of every frame.

    Raises:
        ValueError: if a size is not positive, or another format.
        SharedMemoryError: if there is not enough memory.
        OSError: if this process has too many open files.
    """

    def __init__(
        self,
        width: int,
        height: int,
        depth: int = 4,
        *,
        metadata_bytes: int = METADATA_BYTES,
        format: PixelFormat = PixelFormat.RGB,
    ) -> None:
        if min(width, height, depth) < 1 or metadata_bytes < 0:
            raise ValueError(f"a ring needs positive sizes, got {width}x{height}, depth {depth}")
        if format not in (PixelFormat.RGB, PixelFormat.RGBA):
            raise ValueError(f"a ring carries rgb or rgba frames, not {format.value}")
        metadata_bytes = -(-metadata_bytes // 8) * 8  # so that every slot stays aligned to 64 bits
        self._layout = Layout(width, height, depth, metadata_bytes, format.channels)
        self._block = SharedBlock(self._layout.total_bytes)
        self._read_socket, self._write_socket = socket.socketpair()
        self._release = weakref.finalize(self, _release, self._block, self._read_socket, self._write_socket)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the ring's frames in pixels."""
        return self._layout.width, self._layout.height

    @property
    def bytes(self) -> int:
        """Bytes of its memory."""
        return self._layout.total_bytes

    def writer(self) -> RingWriter:
        """A writing end, for this process or as an argument of another. Only one may be in use at a time."""
        return RingWriter(self._layout, *self._handles(self._write_socket))

    def reader(self) -> RingReader:
        """A reading end, for this process or as an argument of another. Only one may be in use at a time."""
        return RingReader(self._layout, *self._handles(self._read_socket))

    def close(self) -> None:
        """Give up the memory; idempotent. Ends that are still open keep it until they are closed."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _handles(self, end: socket.socket) -> tuple[SharedBlock, socket.socket]:
        """Handles of the memory and of one end of the sockets, for an end of the ring."""
        if not self._release.alive:
            raise ValueError("this ring is closed")
        return self._block.copy(), end.dup()


def _release(block: SharedBlock, *sockets: socket.socket) -> None:
    for end in sockets:
        end.close()
    block.close()
