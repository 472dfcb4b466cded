"""The two ends of a frame ring: `RingWriter` in one process, `RingReader` in another. See `frame_ring`."""

from __future__ import annotations

import socket
import threading
import time
import weakref
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bridge.ipc.memory_barrier import MemoryBarrier
from bridge.ipc.metadata import decoded, encoded
from bridge.ipc.ring_memory import AT, HEAD, NEXT, TAKEN, Arrays, Layout, Memory
from bridge.ipc.shared_block import SharedBlock
from engine.frame import Frame, PixelFormat


class RingEnd:
    """What both ends share: mapping on first use, pickling as a process argument, closing.

    Args:
        layout: geometry of the ring's memory.
        block: a handle of that memory, which this end closes.
        wake_up: the socket through which the writer wakes the reader.
    """

    def __init__(self, layout: Layout, block: SharedBlock, wake_up: socket.socket) -> None:
        self._layout = layout
        self._block = block
        self._wake_up = wake_up
        self._memory: Memory | None = None
        self._barrier = MemoryBarrier()
        self._close_socket = weakref.finalize(self, wake_up.close)

    def __getstate__(self) -> tuple[Layout, SharedBlock, socket.socket]:
        return self._layout, self._block, self._wake_up

    def __setstate__(self, state: tuple[Layout, SharedBlock, socket.socket]) -> None:
        type(self).__init__(self, *state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release this process's mapping and socket; idempotent. The ring itself remains."""
        if self._memory is not None:
            self._memory.close()
        self._block.close()
        self._close_socket()

    @property
    def dropped(self) -> int:
        """Frames that were overwritten or skipped before they were read, since the ring was created."""
        words = self._open().words
        following = int(words[NEXT])
        overrun = max(0, int(words[HEAD]) - self._layout.depth - following)
        return following - int(words[TAKEN]) + overrun

    @property
    def written(self) -> int:
        """Frames put since the ring was created."""
        return int(self._open().words[HEAD])

    @property
    def pending(self) -> int:
        """Frames waiting to be read (0 to depth)."""
        words = self._open().words
        return max(0, min(int(words[HEAD]) - int(words[NEXT]), self._layout.depth))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the ring's frames in pixels."""
        return self._layout.width, self._layout.height

    @property
    def format(self) -> PixelFormat:
        """Format of the ring's frames: RGB or RGBA."""
        return PixelFormat.RGB if self._layout.channels == 3 else PixelFormat.RGBA

    @property
    def metadata_bytes(self) -> int:
        """Longest metadata of a frame, in bytes; see `bridge.ipc.metadata`."""
        return self._layout.metadata_bytes

    def _open(self) -> Arrays:
        if self._memory is None:
            if not self._close_socket.alive:
                raise ValueError("this end of the ring is closed")
            self._memory = Memory(self._layout, self._block)
        return self._memory.arrays


class RingWriter(RingEnd):
    """The writing end. For one process and one thread at a time, but any thread may close it, even during a `put`."""

    def __init__(self, layout: Layout, block: SharedBlock, wake_up: socket.socket) -> None:
        super().__init__(layout, block, wake_up)
        self._using = threading.Lock()

    def close(self) -> None:
        """Release this process's mapping and socket, after a `put` in progress has finished; idempotent."""
        with self._using:
            super().close()

    def put(self, frame: Frame) -> bool:
        """Copy a frame into the ring; when it is full, the oldest frame is overwritten. Never blocks.

        Args:
            frame: of the ring's size and format.

        Returns:
            False if every reading end is closed, the owner's included; else True.

        Raises:
            ValueError: wrong size or format, metadata that is too long, or this end is closed.
        """
        with self._using:
            return self._put(frame)

    def _put(self, frame: Frame) -> bool:
        layout, memory = self._layout, self._open()
        if frame.format is not self.format or (frame.width, frame.height) != self.size:
            raise ValueError(
                f"this ring carries {self.format.value} frames of {layout.width}x{layout.height}, "
                f"got {frame.format.value} {frame.width}x{frame.height}"
            )
        blob = encoded(frame.metadata)
        if len(blob) > layout.metadata_bytes:
            raise ValueError(f"metadata of {len(blob)} bytes; this ring holds at most {layout.metadata_bytes}")
        number = int(memory.words[HEAD])
        slot = number % layout.slots
        header = memory.headers[slot]
        header[AT.BEGIN] = number + 1
        self._barrier()  # the reader learns that this slot changes before it changes
        header[AT.PTS] = frame.pts_ns
        header[AT.CAPTURED] = frame.captured_ns
        header[AT.SEQ] = frame.seq
        header[AT.QUEUED] = time.monotonic_ns()
        header[AT.METADATA] = len(blob)
        if blob:
            memory.metadata[slot][: len(blob)] = np.frombuffer(blob, np.uint8)
        np.copyto(memory.pixels[slot], frame.pixels)
        self._barrier()  # the whole frame is there before its number says so
        header[AT.END] = number + 1
        memory.words[HEAD] = number + 1
        return self._wake_reader()

    def _wake_reader(self) -> bool:
        self._wake_up.setblocking(False)
        try:
            self._wake_up.send(b"\0")
        except BlockingIOError:
            pass  # the buffer is full: enough wake-ups are waiting
        except (BrokenPipeError, ConnectionError):
            return False
        return True


class RingReader(RingEnd):
    """The reading end. For one process and one thread at a time.

    Attributes:
        queued_ns: `time.monotonic_ns()` at which the frame that `get` returned last was put into the ring.
    """

    queued_ns: int = 0

    @property
    def waitable(self) -> socket.socket:
        """A socket that becomes readable when there may be a frame; for `multiprocessing.connection.wait`."""
        return self._wake_up

    def get(
        self, timeout_s: float | None = 0.0, *, newest: bool = False, into: NDArray[np.uint8] | None = None
    ) -> Frame | None:
        """Take the oldest frame in the ring, or the newest; wait for one if there is none.

        Args:
            timeout_s: longest wait in seconds; 0 does not wait, None waits for ever.
            newest: skip to the newest frame (the skipped ones count as dropped).
            into: uint8 array [height, width, 3] that receives the pixels (for instance page-locked memory);
                a new array by default.

        Returns:
            A frame that owns its pixels (or has `into`), or None if there was none in time.

        Raises:
            EOFError: every writing end is closed, the owner's included, and the ring is empty.
            ValueError: this end is closed.
        """
        frame = self._take(newest, into)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while frame is None:
            wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._wake_up.settimeout(wait_s)
            try:
                received = self._wake_up.recv(4096)
            except (TimeoutError, BlockingIOError):
                return self._take(newest, into)
            except ConnectionError:
                received = b""
            frame = self._take(newest, into)
            if frame is None and not received:
                raise EOFError("the other end of the ring is gone")
        return frame

    def skip(self) -> int:
        """Drop every waiting frame; returns how many there were."""
        words = self._open().words
        skipped = self.pending
        words[NEXT] = words[HEAD]
        return skipped

    def _take(self, newest: bool, into: NDArray[np.uint8] | None) -> Frame | None:
        layout, memory = self._layout, self._open()
        words = memory.words
        while True:
            head = int(words[HEAD])
            number = max(int(words[NEXT]), head - (1 if newest else layout.depth))
            if number >= head:
                return None
            slot = number % layout.slots
            header = memory.headers[slot]
            if int(header[AT.BEGIN]) == int(header[AT.END]) == number + 1:
                self._barrier()  # nothing of the frame is read before its number
                pixels = np.empty(memory.pixels[slot].shape, np.uint8) if into is None else into
                np.copyto(pixels, memory.pixels[slot])
                blob = memory.metadata[slot][: int(header[AT.METADATA])].tobytes()
                _, _, pts, captured, seq, queued, _ = header[: len(AT)].tolist()
                self._barrier()  # everything was read before the number is read again
                if int(header[AT.BEGIN]) == number + 1:
                    words[NEXT] = number + 1
                    words[TAKEN] += 1
                    self.queued_ns = queued
                    return Frame(pixels, self.format, pts, captured, seq, decoded(blob))
            # Overtaken: the writer is a whole ring ahead by now, so the next iteration takes a newer frame.
