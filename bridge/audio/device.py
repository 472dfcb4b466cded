"""An input of this machine's sound devices, through the library sounddevice (PortAudio)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bridge.audio.analysis import HOP
from bridge.audio.source import AudioError, AudioSource, Block, Blocks, library

MOST_CHANNELS = 2

SILENT_S = 2.0
"""A device that gives no data for this long is lost: PortAudio does not tell that one was unplugged."""

MOST_LISTED = 12
"""Most names in an error."""

BEST_ON_WINDOWS = "Windows WASAPI"
"""The driver model that is taken where a device has several: the others come 100 ms late."""

_open = threading.Lock()  # held while a stream is opened, and to count the open ones
_streams = 0


class DeviceSound(AudioSource):
    """One input.

    Args:
        name: its name, or a part of it; empty for the machine's own choice.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: Any = None
        self._blocks = Blocks()
        self._rate = 0
        self._heard = 0.0

    def open(self) -> None:
        """Look for the device among those that are plugged in now, and listen to it."""
        global _streams
        if self._stream is not None:
            return
        sound = library("sounddevice")
        with _open:
            try:
                if not _streams:  # PortAudio lists the devices when it starts, and ends every stream when it ends
                    sound._terminate()
                    sound._initialize()
                device = choose(sound, self._name)
                self._rate = int(device["default_samplerate"])
                stream = sound.InputStream(
                    device=device["index"],
                    channels=min(MOST_CHANNELS, device["max_input_channels"]),
                    samplerate=self._rate,
                    blocksize=HOP,
                    dtype="float32",
                    latency="low",
                    callback=self._take,
                )
                try:
                    stream.start()
                except BaseException:
                    stream.close()
                    raise
            except sound.PortAudioError as error:
                raise AudioError(f"The sound cannot be opened: {error}.", "Does another program use it?") from error
            self._stream = stream
            _streams += 1
        self.title = f"{device['name']}, {self._rate} Hz"
        self._heard = time.monotonic()

    def read(self, timeout_s: float) -> Block | None:
        """The next block."""
        block = self._blocks.take(timeout_s)
        now = time.monotonic()
        if block is not None:
            self._heard = now
        elif now - self._heard > SILENT_S or not self._stream.active:
            raise AudioError(f"{self.title or self._name} gives no sound any more.", "Is it unplugged?")
        return block

    def close(self) -> None:
        """Give the device back."""
        global _streams
        stream, self._stream = self._stream, None
        if stream is not None:
            with _open:
                _streams -= 1
                stream.close()

    def _take(self, samples: np.ndarray, frames: int, times: Any, status: Any) -> None:
        """Called by PortAudio on a thread of its own: copy and leave. Sound that was lost before counts as a pause."""
        self._blocks.put(samples, self._rate)


def choose(sound: Any, name: str) -> Mapping[str, Any]:
    """The input device of this name, else with this part in it, whatever the case; without a name, the default.

    Raises:
        AudioError: if there is none; names those that there are.
    """
    inputs: list[Mapping[str, Any]] = [one for one in sound.query_devices() if one["max_input_channels"] > 0]
    if not inputs:
        raise AudioError("There is no sound device with an input.", "Plug one in; it is tried again.")
    inputs.sort(key=lambda device: not _is_best(sound, device))
    if not name:
        return _default(sound, inputs)
    wanted = name.casefold()
    for fits in (lambda text: text == wanted, lambda text: wanted in text):
        for device in inputs:
            if fits(device["name"].casefold()):
                return device
    names = list(dict.fromkeys(device["name"] for device in inputs))
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    listed = ", ".join(map(repr, names[:MOST_LISTED]))
    raise AudioError(f"There is no sound device {name[:60]!r} with an input.", f"There are: {listed}{more}.")


def _is_best(sound: Any, device: Mapping[str, Any]) -> bool:
    return bool(sound.query_hostapis(device["hostapi"])["name"] == BEST_ON_WINDOWS)


def _default(sound: Any, inputs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    chosen = [api["default_input_device"] for api in sound.query_hostapis() if api["name"] == BEST_ON_WINDOWS]
    chosen.append(sound.default.device[0])
    for index in chosen:
        for device in inputs:
            if device["index"] == index:
                return device
    return inputs[0]


def source(name: str, playing: Callable[[], str]) -> DeviceSound:
    """The input of this name."""
    return DeviceSound(name)
