"""What this machine plays, through the library soundcard: WASAPI loopback on Windows, monitors on Linux."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from bridge.audio.analysis import HOP
from bridge.audio.source import AudioError, AudioSource, Block, Blocks, library

RATE = 48000
CHANNELS = 2
"""soundcard gives garbage for a single channel on Windows."""

CLOSE_S = 1.0


class LoopbackSound(AudioSource):
    """What one output plays. While it plays nothing, Windows may give no data at all.

    Args:
        name: a part of the output's name; empty for the default one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._blocks = Blocks()
        self._ending = threading.Event()
        self._opened = threading.Event()
        self._error: AudioError | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to listen. soundcard waits for as long as nothing is played, so a thread of its own calls it."""
        if sys.platform == "darwin":
            raise AudioError(
                "macOS has no loopback.", "Install a virtual device such as BlackHole, and choose device:BlackHole."
            )
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._listen, name="audio loopback", daemon=True)
        self._thread.start()
        self._opened.wait()
        if self._error is not None:
            raise self._error

    def read(self, timeout_s: float) -> Block | None:
        """The next block; None while nothing is played."""
        block = self._blocks.take(timeout_s)
        if block is None and self._error is not None:
            raise self._error
        return block

    def close(self) -> None:
        """End the thread; it is left behind while nothing is played, and ends with the next sound."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _listen(self) -> None:
        try:
            output = choose(library("soundcard"), self._name)
            self.title = f"what {output.name} plays"
            with output.recorder(samplerate=RATE, channels=CHANNELS, blocksize=HOP) as recorder:
                self._opened.set()
                while not self._ending.is_set():
                    self._blocks.put(recorder.record(numframes=HOP), RATE)
        except AudioError as error:
            self._error = error
        except Exception as error:  # whatever soundcard raises, the sound is opened again
            self._error = AudioError(
                f"What this machine plays cannot be heard: {error or type(error).__name__}.",
                "On Linux, PulseAudio or PipeWire has to run." if sys.platform == "linux" else "",
            )
        finally:
            self._opened.set()


def choose(cards: Any, name: str) -> Any:
    """The loopback of the output with this part in its name; without a name, of the default output.

    Raises:
        AudioError: if there is none; names those that there are.
    """
    found = [one for one in cards.all_microphones(include_loopback=True) if one.isloopback]
    if not name and found:
        default = cards.default_speaker().name
        return next((one for one in found if default in one.name), found[0])
    wanted = name.casefold()
    for one in found:
        if wanted in one.name.casefold():
            return one
    names = ", ".join(repr(one.name) for one in found) or "none"
    raise AudioError(f"There is no output {name[:60]!r} to be heard.", f"There are: {names}.")


def source(name: str, playing: Callable[[], str]) -> LoopbackSound:
    """What the output of this name plays."""
    return LoopbackSound(name)
