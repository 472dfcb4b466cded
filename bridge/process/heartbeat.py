"""The engine process's sign of life: a few counters in shared memory that the supervisor reads at any time.

Survives the death of the writer, needs no lock (each word has one writer and is written whole), and leaves no
name behind. Knows nothing of frames or models.
"""

from __future__ import annotations

import ctypes
import enum
import multiprocessing
import time
from typing import Any


class Phase(enum.IntEnum):
    """What the engine process is doing."""

    STARTING = 0
    LOADING = 1
    WAITING = 2
    STEPPING = 3


class Pulse:
    """Counters of one engine process. Make it in the owner, pass it as an argument of the process.

    Attributes of the shared words:
        beat_ns: `time.monotonic_ns()` of the last sign of life.
        phase: see `Phase`.
        taken: frames taken out of the inbox; skipped: of these, frames left out on purpose; finished: frames given
            back; chunks: calls of the model; step_ns: duration of the last call.
    """

    _WORDS = ("beat_ns", "phase", "taken", "skipped", "finished", "chunks", "step_ns")

    def __init__(self) -> None:
        self._words: Any = multiprocessing.get_context("spawn").RawArray(ctypes.c_int64, len(self._WORDS))
        self.beat(Phase.STARTING)

    def beat(self, phase: Phase) -> None:
        """Show a sign of life."""
        self._words[1] = int(phase)
        self._words[0] = time.monotonic_ns()

    def count(self, *, taken: int = 0, skipped: int = 0, finished: int = 0) -> None:
        """Add to the counters of frames."""
        self._words[2] += taken
        self._words[3] += skipped
        self._words[4] += finished

    def chunk(self, duration_ns: int) -> None:
        """Count one call of the model."""
        self._words[5] += 1
        self._words[6] = duration_ns

    @property
    def phase(self) -> Phase:
        """What the process was doing at its last sign of life."""
        return Phase(self._words[1])

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life."""
        return (time.monotonic_ns() - self._words[0]) / 1e9

    @property
    def taken(self) -> int:
        """Frames taken out of the inbox."""
        return int(self._words[2])

    @property
    def skipped(self) -> int:
        """Frames that the schedule left out."""
        return int(self._words[3])

    @property
    def finished(self) -> int:
        """Frames given back."""
        return int(self._words[4])

    @property
    def chunks(self) -> int:
        """Calls of the model."""
        return int(self._words[5])

    @property
    def step_s(self) -> float:
        """Duration of the last call of the model in s."""
        return int(self._words[6]) / 1e9
