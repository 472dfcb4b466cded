"""The shared memory of a ring of frames: its layout, and one process's mapping of it.

A page of words for the positions, then the slots: each a header of words, room for metadata, and the pixels.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_SPARE_SLOTS = 2
"""More slots than `depth`: while the reader copies the oldest frame the writer can go on by as many."""

_PAGE = 4096
_WORDS = 16
HEAD = 0  # frames written; by the writer alone
NEXT = 8  # number of the next frame to read, and frames read; by the reader alone, in its own cache line
TAKEN = 9


class Stamp(NamedTuple):
    """Words at the start of a slot, as indices. `BEGIN` and `END` hold the frame's number + 1."""

    BEGIN: int = 0
    END: int = 1
    PTS: int = 2
    CAPTURED: int = 3
    SEQ: int = 4
    QUEUED: int = 5
    METADATA: int = 6


AT = Stamp()


@dataclass(frozen=True, slots=True)
class Layout:
    """Name and geometry of one ring's memory; what an end needs to find its way."""

    name: str
    width: int
    height: int
    depth: int
    metadata_bytes: int

    @property
    def slots(self) -> int:
        """Slots in the ring: `depth` and the spare ones."""
        return self.depth + _SPARE_SLOTS

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot, in whole pages."""
        used = _WORDS * 8 + self.metadata_bytes + self.width * self.height * 3
        return -(-used // _PAGE) * _PAGE

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole ring."""
        return _PAGE + self.slots * self.slot_bytes


@dataclass(frozen=True, slots=True)
class Arrays:
    """Views of a mapping.

    Attributes:
        words: the ring's positions, see `HEAD`, `NEXT` and `TAKEN`.
        stamps: the header of every slot, see `Stamp`.
        metadata: room for every slot's metadata, uint8 [metadata_bytes].
        pixels: every slot's pixels, uint8 [H, W, 3].
    """

    words: NDArray[np.int64]
    stamps: list[NDArray[np.int64]]
    metadata: list[NDArray[np.uint8]]
    pixels: list[NDArray[np.uint8]]


class Memory:
    """One process's mapping of a ring, cut into arrays. `close` is idempotent and also runs at exit."""

    def __init__(self, layout: Layout) -> None:
        shared = _attach(layout.name)
        # An np.ndarray(buffer=...) would not keep the mapping: a close would pull it from under a copy.
        assert shared.buf is not None
        whole = np.frombuffer(shared.buf, np.uint8)
        head = _WORDS * 8
        slots = [whole[_PAGE + n * layout.slot_bytes :][: layout.slot_bytes] for n in range(layout.slots)]
        after = head + layout.metadata_bytes
        shape = (layout.height, layout.width, 3)
        self._arrays = [
            Arrays(
                words=whole[:head].view(np.int64),
                stamps=[slot[:head].view(np.int64) for slot in slots],
                metadata=[slot[head:after] for slot in slots],
                pixels=[slot[after:][: np.prod(shape)].reshape(shape) for slot in slots],
            )
        ]
        self.close = weakref.finalize(self, _unmap, self._arrays, shared)

    @property
    def arrays(self) -> Arrays:
        """The views. Keep them no longer than one call: a mapping that is looked at cannot be closed.

        Raises:
            ValueError: if the mapping is closed.
        """
        try:
            return self._arrays[0]
        except IndexError:
            raise ValueError("this end of the ring is closed") from None


_unmapping = threading.Lock()
_in_use: list[SharedMemory] = []
"""Mappings that were closed while a thread still copied; they go with the next that is closed."""


def _unmap(arrays: list[Arrays], shared: SharedMemory) -> None:
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
