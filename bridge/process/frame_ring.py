"""Carries frames between two processes: slots in shared memory, in a bounded ring that drops the oldest.

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
import json
import socket
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple, Self

import numpy as np

from engine.frame import Frame, PixelFormat

METADATA_BYTES = 4096
"""Room for a frame's metadata as JSON."""

_SPARE_SLOTS = 2
"""More slots than `depth`: while the reader copies the oldest frame the writer can go on by as many."""

_PAGE = 4096
_WORDS = 16
_HEAD = 0  # frames written; by the writer alone
_NEXT = 8  # number of the next frame to read, and frames read; by the reader alone, in its own cache line
_TAKEN = 9


class _Stamp(NamedTuple):
    """Words at the start of a slot, as indices. `BEGIN` and `END` hold the frame's number + 1."""

    BEGIN: int = 0
    END: int = 1
    PTS: int = 2
    CAPTURED: int = 3
    SEQ: int = 4
    QUEUED: int = 5
    METADATA: int = 6


_AT = _Stamp()


@dataclass(frozen=True, slots=True)
class _Layout:
    """Name and geometry of one ring's memory; what an end needs to find its way."""

    name: str
    width: int
    height: int
    depth: int
    metadata_bytes: int

    @property
    def slots(self) -> int:
        return self.depth + _SPARE_SLOTS

    @property
    def slot_bytes(self) -> int:
        used = _WORDS * 8 + self.metadata_bytes + self.width * self.height * 3
        return -(-used // _PAGE) * _PAGE

    @property
    def total_bytes(self) -> int:
        return _PAGE + self.slots * self.slot_bytes


class _Memory:
    """One process's mapping of a ring, cut into arrays. `close` is idempotent and also runs at exit."""

    def __init__(self, layout: _Layout, shared: SharedMemory) -> None:
        # An np.ndarray(buffer=...) would not keep the mapping: a close would pull it from under a copy.
        assert shared.buf is not None
        whole = np.frombuffer(shared.buf, np.uint8)
        head = _WORDS * 8
        slots = [whole[_PAGE + n * layout.slot_bytes :][: layout.slot_bytes] for n in range(layout.slots)]
        after = head + layout.metadata_bytes
        shape = (layout.height, layout.width, 3)
        arrays: dict[str, Any] = {
            "words": whole[:head].view(np.int64),
            "stamps": [slot[:head].view(np.int64) for slot in slots],
            "metadata": [slot[head:after] for slot in slots],
            "pixels": [slot[after:][: np.prod(shape)].reshape(shape) for slot in slots],
        }
        self._arrays = arrays
        self.close = weakref.finalize(self, _unmap, arrays, shared)

    def __getattr__(self, name: str) -> Any:
        if name in ("words", "stamps", "metadata", "pixels"):
            try:
                return self._arrays[name]
            except KeyError:
                raise ValueError("this end of the ring is closed") from None
        raise AttributeError(name)


_unmapping = threading.Lock()
_in_use: list[SharedMemory] = []
"""Mappings that were closed while a thread still copied; they go with the next that is closed."""


def _unmap(arrays: dict[str, Any], shared: SharedMemory) -> None:
    arrays.clear()  # a mapping cannot be closed while arrays look at it
    with _unmapping:
        _in_use.append(shared)
        for mapping in tuple(_in_use):
            with contextlib.suppress(BufferError):
                mapping.close()
                _in_use.remove(mapping)


def _attach(name: str) -> SharedMemory:
    """Map existing memory without taking part in its ownership.

    Before Python 3.13 this also enters the name with the resource tracker. That is harmless: children started
    by `multiprocessing` share their parent's tracker, which keeps a set, and the owner's unlink takes it out
    again.
    """
    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    return SharedMemory(name)


class _End:
    """What both ends share: mapping on first use, pickling as a process argument, closing."""

    def __init__(self, layout: _Layout, bell: socket.socket) -> None:
        self._layout = layout
        self._bell = bell
        self._memory: _Memory | None = None
        self._hush = weakref.finalize(self, bell.close)

    def __getstate__(self) -> tuple[_Layout, socket.socket]:
        return self._layout, self._bell

    def __setstate__(self, state: tuple[_Layout, socket.socket]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up this process's mapping and socket; idempotent. The ring itself stays."""
        if self._memory is not None:
            self._memory.close()
        self._hush()

    @property
    def dropped(self) -> int:
        """Frames that were overwritten or skipped before they were read, since the ring was made."""
        words = self._open().words
        following = int(words[_NEXT])
        overrun = max(0, int(words[_HEAD]) - self._layout.depth - following)
        return following - int(words[_TAKEN]) + overrun

    @property
    def written(self) -> int:
        """Frames put since the ring was made."""
        return int(self._open().words[_HEAD])

    @property
    def pending(self) -> int:
        """Frames that wait to be read (0 to depth)."""
        words = self._open().words
        return max(0, min(int(words[_HEAD]) - int(words[_NEXT]), self._layout.depth))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the ring's frames in pixels."""
        return self._layout.width, self._layout.height

    def _open(self) -> _Memory:
        if self._memory is None:
            if not self._hush.alive:
                raise ValueError("this end of the ring is closed")
            self._memory = _Memory(self._layout, _attach(self._layout.name))
        return self._memory


class RingWriter(_End):
    """The writing end. One process and one thread at a time, but any thread may close it, also during a `put`."""

    def __init__(self, layout: _Layout, bell: socket.socket) -> None:
        super().__init__(layout, bell)
        self._using = threading.Lock()

    def close(self) -> None:
        """Give up this process's mapping and socket once a `put` in progress is done; idempotent."""
        with self._using:
            super().close()

    def put(self, frame: Frame) -> bool:
        """Copy a frame into the ring; the oldest goes when the ring is full. Never blocks.

        Args:
            frame: RGB, of the ring's size.

        Returns:
            False when every reading end is closed for good (its owner is gone), else True.

        Raises:
            ValueError: wrong size or format, metadata beyond the ring's room for it, or the end is closed.
        """
        with self._using:
            return self._put(frame)

    def _put(self, frame: Frame) -> bool:
        layout, memory = self._layout, self._open()
        if frame.format is not PixelFormat.RGB or (frame.width, frame.height) != (
            layout.width,
            layout.height,
        ):
            raise ValueError(
                f"this ring carries rgb frames of {layout.width}x{layout.height}, "
                f"got {frame.format.value} {frame.width}x{frame.height}"
            )
        blob = json.dumps(dict(frame.metadata)).encode() if frame.metadata else b""
        if len(blob) > layout.metadata_bytes:
            raise ValueError(f"metadata of {len(blob)} bytes; this ring has room for {layout.metadata_bytes}")
        number = int(memory.words[_HEAD])
        slot = number % layout.slots
        stamp = memory.stamps[slot]
        stamp[_AT.BEGIN] = number + 1
        stamp[_AT.PTS] = frame.pts_ns
        stamp[_AT.CAPTURED] = frame.captured_ns
        stamp[_AT.SEQ] = frame.seq
        stamp[_AT.QUEUED] = time.monotonic_ns()
        stamp[_AT.METADATA] = len(blob)
        if blob:
            memory.metadata[slot][: len(blob)] = np.frombuffer(blob, np.uint8)
        np.copyto(memory.pixels[slot], frame.pixels)
        stamp[_AT.END] = number + 1
        memory.words[_HEAD] = number + 1
        return self._ring()

    def _ring(self) -> bool:
        self._bell.setblocking(False)
        try:
            self._bell.send(b"\0")
        except BlockingIOError:
            pass  # full: the reader has wake-ups enough
        except (BrokenPipeError, ConnectionError):
            return False
        return True


class RingReader(_End):
    """The reading end. One process and one thread at a time.

    Attributes:
        queued_ns: `time.monotonic_ns()` at which the frame last returned was put; its age in the ring.
    """

    queued_ns: int = 0

    @property
    def waitable(self) -> socket.socket:
        """Becomes readable when there may be a frame; for `multiprocessing.connection.wait`."""
        return self._bell

    def get(
        self, timeout_s: float | None = 0.0, *, newest: bool = False, into: np.ndarray | None = None
    ) -> Frame | None:
        """Take the oldest frame in the ring, or the newest; wait for one if there is none.

        Args:
            timeout_s: longest wait in seconds; 0 does not wait, None waits for ever.
            newest: skip to the newest frame (the skipped ones count as dropped).
            into: uint8 array [height, width, 3] to copy the pixels to (for instance page-locked memory);
                a new array by default.

        Returns:
            A frame that owns its pixels, or None when the time is over.

        Raises:
            EOFError: every writing end is closed for good (its owner is gone) and the ring is empty.
            ValueError: this end is closed.
        """
        frame = self._take(newest, into)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while frame is None:
            wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._bell.settimeout(wait_s)
            try:
                rung = self._bell.recv(4096)
            except (TimeoutError, BlockingIOError):
                return self._take(newest, into)
            except ConnectionError:
                rung = b""
            frame = self._take(newest, into)
            if frame is None and not rung:
                raise EOFError("the other end of the ring is gone")
        return frame

    def skip(self) -> int:
        """Drop everything that waits; returns how many frames that were."""
        words = self._open().words
        skipped = self.pending
        words[_NEXT] = words[_HEAD]
        return skipped

    def _take(self, newest: bool, into: np.ndarray | None) -> Frame | None:
        layout, memory = self._layout, self._open()
        words = memory.words
        while True:
            head = int(words[_HEAD])
            number = max(int(words[_NEXT]), head - (1 if newest else layout.depth))
            if number >= head:
                return None
            slot = number % layout.slots
            stamp = memory.stamps[slot]
            if int(stamp[_AT.BEGIN]) == int(stamp[_AT.END]) == number + 1:
                pixels = np.empty((layout.height, layout.width, 3), np.uint8) if into is None else into
                np.copyto(pixels, memory.pixels[slot])
                blob = memory.metadata[slot][: int(stamp[_AT.METADATA])].tobytes()
                _, _, pts, captured, seq, queued, _ = stamp[: len(_AT)].tolist()
                if int(stamp[_AT.BEGIN]) == number + 1:
                    words[_NEXT] = number + 1
                    words[_TAKEN] += 1
                    self.queued_ns = queued
                    metadata = json.loads(blob) if blob else {}
                    return Frame(pixels, PixelFormat.RGB, pts, captured, seq, metadata)
            # Overtaken: the writer is a whole ring ahead by now, so the next pass takes a newer frame.


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
        bytes_needed = _Layout("", width, height, depth, room).total_bytes
        self._shared = SharedMemory(create=True, size=bytes_needed)
        self._layout = _Layout(self._shared.name, width, height, depth, room)
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
