"""Carries frames between two processes: a bounded ring buffer in shared memory that drops the oldest.

One process writes, one reads; neither can hold the other up, and either may be killed at any moment:

* There is no lock. Every slot bears the number of the frame in it, written before and after the pixels; a
  reader that was overtaken while it copied sees the number change and takes a newer frame instead.
* The reader copies out. Nothing is ever on loan to a process, so nothing is lost when that process dies, and
  its successor goes on where it stopped: all positions live in the shared memory.
* Waiting is a blocking read on a socket, woken by one byte for each frame. When the reader is slow or dead
  the socket's buffer fills and further bytes are left out; `put` never blocks.

The process that makes the `FrameRing` owns the memory and outlives both ends. Ends are handed to other
processes as arguments of a `multiprocessing` process (start method "spawn"; libndi and CUDA do not survive a
fork)::

    def engine(inbox: RingReader, outbox: RingWriter) -> None:  # the other process
        while True:
            frame = inbox.get(timeout_s=0.5)  # None: nothing came; EOFError: the owner is gone
            if frame is not None:
                outbox.put(dataclasses.replace(frame, metadata={"controls": "..."}))

    inbox, outbox = FrameRing(640, 480, depth=8), FrameRing(640, 480, depth=8)  # the owner
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=engine, args=(inbox.reader(), outbox.writer()))
    process.start()  # engine died later? start another, again with inbox.reader(), outbox.writer()
    to_engine, from_engine = inbox.writer(), outbox.reader()
    to_engine.put(frame)
    styled = from_engine.get(timeout_s=0.1)
    inbox.close(), outbox.close()  # unlinks the memory

For a preview that only wants the newest picture use `depth=1`, or `get(..., newest=True)`. To wait for a
frame and for messages together pass `reader.waitable` to `multiprocessing.connection.wait`, then `get(0.0)`.

This module knows nothing of video transports, models or controls.
"""

from __future__ import annotations

import contextlib
import socket
import weakref
from multiprocessing.shared_memory import SharedMemory
from typing import Self

from bridge.ipc.ring_ends import RingReader, RingWriter
from bridge.ipc.ring_memory import Layout

__all__ = ["METADATA_BYTES", "FrameRing", "RingReader", "RingWriter"]

METADATA_BYTES = 4096
"""Room for a frame's metadata as JSON."""


class FrameRing:
    """A ring of frame slots and the owner of its memory.

    Args:
        width, height: size of every frame in pixels; frames are RGB uint8.
        depth: frames that can wait before the oldest is dropped.
        metadata_bytes: room for each frame's metadata, as JSON.

    The memory goes when `close` is called or the process ends, even by a kill (the resource tracker of
    `multiprocessing` sees to that).
    """

    def __init__(self, width: int, height: int, depth: int = 4, *, metadata_bytes: int = METADATA_BYTES) -> None:
        if min(width, height, depth) < 1 or metadata_bytes < 0:
            raise ValueError(f"a ring needs positive sizes, got {width}x{height}, depth {depth}")
        # Words are read as whole aligned 64-bit values.
        room = -(-metadata_bytes // 8) * 8
        bytes_needed = Layout("", width, height, depth, room).total_bytes
        self._shared = SharedMemory(create=True, size=bytes_needed)
        self._layout = Layout(self._shared.name, width, height, depth, room)
        self._read_bell, self._write_bell = socket.socketpair()
        self._release = weakref.finalize(self, _destroy, self._shared, self._read_bell, self._write_bell)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the ring's frames in pixels."""
        return self._layout.width, self._layout.height

    def writer(self) -> RingWriter:
        """A writing end, for use here or as an argument of a process. One at a time may be in use."""
        return RingWriter(self._layout, self._dup(self._write_bell))

    def reader(self) -> RingReader:
        """A reading end, for use here or as an argument of a process. One at a time may be in use."""
        return RingReader(self._layout, self._dup(self._read_bell))

    def close(self) -> None:
        """Remove the memory; idempotent. Ends that are still open keep their mapping until they close."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _dup(self, bell: socket.socket) -> socket.socket:
        if not self._release.alive:
            raise ValueError("this ring is closed")
        return bell.dup()


def _destroy(shared: SharedMemory, *bells: socket.socket) -> None:
    for bell in bells:
        bell.close()
    shared.close()
    with contextlib.suppress(FileNotFoundError):
        shared.unlink()
