"""The shared memory of a frame ring: its layout, and one process's mapping of it.

One page holds the ring's positions as 64-bit words. The slots follow: each has a header of such words, space for the
metadata, and the pixels.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridge.ipc.shared_block import Mapping, SharedBlock

_SPARE_SLOTS = 2
"""Slots beyond `depth`, so that the writer can go on by this many frames while the reader copies the oldest one."""

_PAGE = 4096  # bytes
_WORDS = 16  # of the positions, and of the header of each slot

# Indices of the positions. Those of the reader are in a cache line of their own.
HEAD = 0  # frames written; changed by the writer only
NEXT = 8  # number of the next frame to read; changed by the reader only
TAKEN = 9  # frames read; changed by the reader only


class HeaderIndices(NamedTuple):
    """Indices of the words of a slot's header. `BEGIN` and `END` hold the frame's number + 1."""

    BEGIN: int = 0
    END: int = 1
    PTS: int = 2
    CAPTURED: int = 3
    SEQ: int = 4
    QUEUED: int = 5
    METADATA: int = 6


AT = HeaderIndices()


@dataclass(frozen=True, slots=True)
class Layout:
    """Geometry of one ring's memory."""

    width: int
    height: int
    depth: int
    metadata_bytes: int
    channels: int = 3

    @property
    def slots(self) -> int:
        """Slots in the ring: `depth` plus the spare ones."""
        return self.depth + _SPARE_SLOTS

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot, in whole pages."""
        used = _WORDS * 8 + self.metadata_bytes + self.width * self.height * self.channels
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
        headers: the header of every slot, see `HeaderIndices`.
        metadata: every slot's metadata, uint8 [metadata_bytes].
        pixels: every slot's pixels, uint8 [H, W, channels].
    """

    words: NDArray[np.int64]
    headers: list[NDArray[np.int64]]
    metadata: list[NDArray[np.uint8]]
    pixels: list[NDArray[np.uint8]]


class Memory:
    """One process's mapping of a ring, as arrays. `close` is idempotent and also runs at exit."""

    def __init__(self, layout: Layout, block: SharedBlock) -> None:
        mapping, pages = block.map()
        # Unlike np.ndarray(buffer=...), frombuffer keeps the mapping: it cannot be closed during a copy.
        whole = np.frombuffer(pages, np.uint8)
        head = _WORDS * 8
        slots = [whole[_PAGE + n * layout.slot_bytes :][: layout.slot_bytes] for n in range(layout.slots)]
        after = head + layout.metadata_bytes
        shape = (layout.height, layout.width, layout.channels)
        self._arrays = [
            Arrays(
                words=whole[:head].view(np.int64),
                headers=[slot[:head].view(np.int64) for slot in slots],
                metadata=[slot[head:after] for slot in slots],
                pixels=[slot[after:][: np.prod(shape)].reshape(shape) for slot in slots],
            )
        ]
        self.close = weakref.finalize(self, _unmap, self._arrays, pages, mapping)

    @property
    def arrays(self) -> Arrays:
        """The views. Hold them no longer than one call: a mapping with live views cannot be closed.

        Raises:
            ValueError: if the mapping is closed.
        """
        try:
            return self._arrays[0]
        except IndexError:
            raise ValueError("this end of the ring is closed") from None


_unmapping = threading.Lock()
_in_use: list[tuple[memoryview, Mapping]] = []
"""Mappings that could not be closed because a thread was copying; they are closed together with the next one."""


def _unmap(arrays: list[Arrays], pages: memoryview, mapping: Mapping) -> None:
    arrays.clear()  # a mapping cannot be closed while arrays refer to it
    with _unmapping:
        _in_use.append((pages, mapping))
        for held in tuple(_in_use):
            with contextlib.suppress(BufferError):
                held[0].release()
                held[1].close()
                _in_use.remove(held)
