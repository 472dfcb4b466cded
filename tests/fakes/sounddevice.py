"""A strict stand-in for the library sounddevice, for machines without a sound card: devices come and go.

As with PortAudio, the list of devices is that of the last start of the library, a stream of a device that was pulled
says that it is active and never calls back again, and the end of the library closes every stream.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np


class PortAudioError(Exception):
    """What the library raises."""


class InputStream:
    """An input; takes the arguments that Tidecast gives and no others."""

    def __init__(
        self,
        *,
        device: int,
        channels: int,
        samplerate: int,
        blocksize: int,
        dtype: str,
        latency: str,
        callback: Callable[[np.ndarray, int, Any, Any], None],
    ) -> None:
        row = _library.listed[device]
        if row["name"] not in _library.plugged:
            raise PortAudioError("Error opening InputStream: Device unavailable [PaErrorCode -9985]")
        if not 0 < channels <= row["max_input_channels"] or samplerate != row["default_samplerate"]:
            raise PortAudioError("Error opening InputStream: Invalid sample rate [PaErrorCode -9997]")
        assert (dtype, latency) == ("float32", "low")
        self.name, self.channels, self.blocksize, self.callback = row["name"], channels, blocksize, callback
        self.active = False
        self._closed = False
        _library.streams.append(self)

    def start(self) -> None:
        assert not self._closed
        self.active = True

    def close(self) -> None:
        """Close it; no callback comes afterwards."""
        with _library.calling:
            self.active, self._closed = False, True


class Library(types.ModuleType):
    """The module, with what is plugged in now."""

    PortAudioError = PortAudioError
    InputStream = InputStream

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.plugged: dict[str, dict[str, Any]] = {}
        self.listed: list[dict[str, Any]] = []
        self.streams: list[InputStream] = []
        self.calling = threading.RLock()
        self.starts = 0
        self.default = types.SimpleNamespace(device=[-1, -1])
        self.apis = ["ALSA"]

    def _initialize(self) -> None:
        self.starts += 1
        self.listed = [{**row, "index": index} for index, row in enumerate(self.plugged.values())]
        self.default.device[0] = 0 if self.listed else -1

    def _terminate(self) -> None:
        for stream in self.streams:
            stream.close()
        self.streams, self.listed = [], []

    def query_devices(self) -> list[dict[str, Any]]:
        return list(self.listed)

    def query_hostapis(self, index: int | None = None) -> Any:
        rows = [
            {"name": name, "default_input_device": next((d["index"] for d in self.listed if d["hostapi"] == n), -1)}
            for n, name in enumerate(self.apis)
        ]
        return rows if index is None else rows[index]

    # The world around it

    def plug(self, name: str, *, inputs: int = 2, rate: float = 48000.0, api: int = 0, key: str = "") -> None:
        """A device is plugged in; the library sees it when it starts the next time."""
        self.plugged[key or name] = {
            "name": name,
            "max_input_channels": inputs,
            "default_samplerate": rate,
            "hostapi": api,
        }

    def pull(self, name: str) -> None:
        """A device is pulled."""
        with self.calling:
            del self.plugged[name]

    def play(self, samples: np.ndarray) -> None:
        """Let every device hear this: [samples], on all channels."""
        with self.calling:
            for stream in self.streams:
                if stream.active and stream.name in self.plugged:
                    for at in range(0, len(samples) - stream.blocksize + 1, stream.blocksize):
                        block = samples[at : at + stream.blocksize, None].repeat(stream.channels, axis=1)
                        stream.callback(block.astype(np.float32), stream.blocksize, None, None)


_library = Library()


def fresh() -> Library:
    """The library as after its import, with nothing plugged in."""
    global _library
    _library = Library()
    _library._initialize()
    return _library
