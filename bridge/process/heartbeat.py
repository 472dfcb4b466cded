"""The engine process's heartbeat: a few counters in shared memory that the supervisor reads at any time.

They stay readable when the engine process dies and need no lock, because each word has one writer and is written
atomically. The memory has no name, so a crash leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import enum
import multiprocessing
import time

SMOOTHED = 16
"""Chunks over which the time that frames wait is smoothed."""


class Phase(enum.IntEnum):
    """What the engine process is doing."""

    STARTING = 0
    LOADING = 1
    WAITING = 2
    STEPPING = 3


class _Word(enum.IntEnum):
    """Index of each counter."""

    BEAT_NS = 0
    PHASE = 1
    TAKEN = 2
    SKIPPED = 3
    FINISHED = 4
    CHUNKS = 5
    STEP_NS = 6
    FIRST_STEP_NS = 7
    WAITED_NS = 8


class Heartbeat:
    """Counters of one engine process. Created by the supervisor and passed to the process as an argument."""

    def __init__(self) -> None:
        self._words = multiprocessing.get_context("spawn").RawArray(ctypes.c_int64, len(_Word))
        self.beat(Phase.STARTING)

    def beat(self, phase: Phase) -> None:
        """Record a sign of life."""
        self._words[_Word.PHASE] = int(phase)
        self._words[_Word.BEAT_NS] = time.monotonic_ns()

    def count(self, *, taken: int = 0, skipped: int = 0, finished: int = 0) -> None:
        """Add to the frame counters."""
        self._words[_Word.TAKEN] += taken
        self._words[_Word.SKIPPED] += skipped
        self._words[_Word.FINISHED] += finished

    def begun(self, waited_ns: int) -> None:
        """Record how long the newest frame of a chunk that is begun has waited since it was captured."""
        share = min(self.chunks + 1, SMOOTHED)
        self._words[_Word.WAITED_NS] += (waited_ns - self._words[_Word.WAITED_NS]) // share

    def chunk(self, duration_ns: int) -> None:
        """Count one finished chunk and record how long it took."""
        if not self._words[_Word.CHUNKS]:
            self._words[_Word.FIRST_STEP_NS] = duration_ns
        self._words[_Word.STEP_NS] = duration_ns
        self._words[_Word.CHUNKS] += 1

    @property
    def phase(self) -> Phase:
        """What the process was doing at its last sign of life."""
        return Phase(self._words[_Word.PHASE])

    @property
    def beat_ns(self) -> int:
        """When the process gave its last sign of life, by its own `time.monotonic_ns`; changes with every sign."""
        return int(self._words[_Word.BEAT_NS])

    @property
    def taken(self) -> int:
        """Frames read from the ring."""
        return int(self._words[_Word.TAKEN])

    @property
    def skipped(self) -> int:
        """Frames that the schedule left out."""
        return int(self._words[_Word.SKIPPED])

    @property
    def finished(self) -> int:
        """Frames written to the other ring."""
        return int(self._words[_Word.FINISHED])

    @property
    def chunks(self) -> int:
        """Chunks finished."""
        return int(self._words[_Word.CHUNKS])

    @property
    def waited_s(self) -> float:
        """How long the newest frame of a chunk waits from its capture until the chunk is begun, mean of the last ones
        in s."""
        return self._words[_Word.WAITED_NS] / 1e9

    @property
    def step_s(self) -> float:
        """Duration of the last chunk in s."""
        return self._words[_Word.STEP_NS] / 1e9

    @property
    def first_step_s(self) -> float:
        """Duration of the first chunk in s, which may be a warm-up; 0 until there is one."""
        return self._words[_Word.FIRST_STEP_NS] / 1e9
