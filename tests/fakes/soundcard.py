"""A strict stand-in for the library soundcard where there is no sound: outputs whose sound can be recorded."""

from __future__ import annotations

import queue
import types
from typing import Any

import numpy as np


class Recorder:
    """Gives what its output plays; waits while that is nothing, as on Windows."""

    def __init__(self, output: Output, channels: int) -> None:
        self._output, self._channels = output, channels

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._output.recorded = True

    def record(self, numframes: int) -> np.ndarray:
        samples = self._output.sound.get()
        if samples is None:
            raise RuntimeError("Error 0x88890004")  # the device was pulled
        assert len(samples) == numframes
        return np.repeat(samples[:, None], self._channels, axis=1)


class Output:
    """The loopback of an output, or a microphone."""

    def __init__(self, name: str, isloopback: bool) -> None:
        self.name, self.isloopback = name, isloopback
        self.sound: queue.Queue[np.ndarray | None] = queue.Queue()
        self.recorded = False

    def recorder(self, samplerate: int, channels: int, blocksize: int) -> Recorder:
        assert samplerate == 48000 and channels == 2, "one channel is garbage on Windows"
        return Recorder(self, channels)


class Library(types.ModuleType):
    """The module."""

    def __init__(self, *outputs: Output) -> None:
        super().__init__("soundcard")
        self._outputs = outputs

    def all_microphones(self, include_loopback: bool = False) -> list[Output]:
        return [one for one in self._outputs if include_loopback or not one.isloopback]

    def default_speaker(self) -> Any:
        return types.SimpleNamespace(name="Speakers")
