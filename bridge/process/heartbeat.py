"""The engine process's heartbeat: a few counters in shared memory that the supervisor reads at any time.

Survives the death of the writer, needs no lock (each word has one writer and is written whole), and leaves no
name behind. Knows nothing of frames or models.
"""

from __future__ import annotations

import ctypes
import enum
import multiprocessing
import time


class Phase(enum.IntEnum):
    """What the engine process is doing."""

    STARTING = 0
    LOADING = 1
    WAITING = 2
    STEPPING = 3


class _Word(enum.IntEnum):
    """Where each counter is."""

    BEAT_NS = 0
    PHASE = 1
    TAKEN = 2
    SKIPPED = 3
    FINISHED = 4
    CHUNKS = 5
    STEP_NS = 6


class Heartbeat:
    """Counters of one engine process. Make it in the owner, pass it as an argument of the process."""

    def __init__(self) -> None:
        self._words = multiprocessing.get_context("spawn").RawArray(ctypes.c_int64, len(_Word))
        self.beat(Phase.STARTING)

    def beat(self, phase: Phase) -> None:
        """Show a sign of life."""
        self._words[_Word.PHASE] = int(phase)
        self._words[_Word.BEAT_NS] = time.monotonic_ns()

    def count(self, *, taken: int = 0, skipped: int = 0, finished: int = 0) -> None:
        """Add to the counters of frames."""
        self._words[_Word.TAKEN] += taken
        self._words[_Word.SKIPPED] += skipped
        self._words[_Word.FINISHED] += finished

    def chunk(self, duration_ns: int) -> None:
        """Count one call of the model."""
        self._words[_Word.CHUNKS] += 1
        self._words[_Word.STEP_NS] = duration_ns

    @property
    def phase(self) -> Phase:
        """What the process was doing at its last sign of life."""
        return Phase(self._words[_Word.PHASE])

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life."""
        return (time.monotonic_ns() - self._words[_Word.BEAT_NS]) / 1e9

    @property
    def taken(self) -> int:
        """Frames taken out of the ring."""
        return int(self._words[_Word.TAKEN])

    @property
    def skipped(self) -> int:
        """Frames that the schedule left out."""
        return int(self._words[_Word.SKIPPED])

    @property
    def finished(self) -> int:
        """Frames given back."""
        return int(self._words[_Word.FINISHED])

    @property
    def chunks(self) -> int:
        """Calls of the model."""
        return int(self._words[_Word.CHUNKS])

    @property
    def step_s(self) -> float:
        """Duration of the last call of the model in s."""
        return self._words[_Word.STEP_NS] / 1e9
