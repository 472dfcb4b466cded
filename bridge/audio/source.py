"""What gives sound, and how it is named: `off`, `ndi`, `ndi:NAME`, `device:NAME`, `loopback:NAME`.

A source belongs to the thread that opens it. Its blocks come by way of a queue with few places: when nobody takes them
in time, the oldest are dropped.
"""

from __future__ import annotations

import abc
import importlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import TidecastError

OFF = "off"
NDI, DEVICE, LOOPBACK = SCHEMES = ("ndi", "device", "loopback")

MOST_WAITING = 16
"""Blocks that wait at most: a sixth of a second with blocks of 10 ms."""

LONGEST_NAME = 200


class AudioError(TidecastError):
    """A sound cannot be heard."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some sound.

    Attributes:
        samples: one channel, float32, full scale 1.
        rate: samples per second.
        at_ns: when it arrived, by `time.monotonic_ns`.
    """

    samples: np.ndarray
    rate: int
    at_ns: int


class AudioSource(abc.ABC):
    """Gives sound. All methods belong to one thread.

    Attributes:
        title: what is heard, for people; empty until it is known.
        problem: why nothing comes although it is open, as a sentence; else empty.
    """

    title = ""
    problem = ""

    @abc.abstractmethod
    def open(self) -> None:
        """Begin to listen.

        Raises:
            AudioError: if it cannot.
        """

    @abc.abstractmethod
    def read(self, timeout_s: float) -> Block | None:
        """The next block; None if none comes in time.

        Raises:
            AudioError: if the source is lost and has to be opened again.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything; idempotent."""


class Blocks:
    """The blocks that a library's thread gives, until the source's thread takes them. `put` never waits."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque(maxlen=MOST_WAITING)
        self._there = threading.Event()

    def put(self, samples: np.ndarray, rate: int) -> None:
        """Add the sound of a call: [samples, channels], which belongs to the caller."""
        self._blocks.append(Block(mono(samples), rate, time.monotonic_ns()))
        self._there.set()

    def take(self, timeout_s: float) -> Block | None:
        """The oldest block; None if none comes in time."""
        if not self._blocks:
            self._there.clear()
            if not self._blocks and not self._there.wait(timeout_s):
                return None
        return self._blocks.popleft() if self._blocks else None


def mono(samples: np.ndarray) -> np.ndarray:
    """The mean of all channels of [samples, channels]: a copy."""
    return np.asarray(samples.mean(axis=1, dtype=np.float32), np.float32)


def parse(text: str) -> tuple[str, str]:
    """Scheme and name.

    Raises:
        AudioError: if there is no such scheme, or the name is too long.
    """
    scheme, _, name = text.strip().partition(":")
    scheme = scheme.lower()
    if scheme not in (OFF, *SCHEMES) or (scheme == OFF and name):
        raise AudioError(
            f"{text[:60]!r} is no sound.",
            "Choose off, ndi, ndi:NAME, device:NAME (device: for the machine's own choice), or loopback:.",
        )
    if len(name) > LONGEST_NAME:
        raise AudioError(f"A name of {len(name)} characters is too long.", f"{LONGEST_NAME} is the most.")
    return scheme, name.strip()


def check(text: str) -> None:
    """Raise an `AudioError` if this can never be a sound."""
    parse(text)


def open_source(text: str, playing: Callable[[], str]) -> AudioSource:
    """The source of this name, not open yet.

    Args:
        text: see the module's text; not `off`.
        playing: the full name of the NDI source that plays now; empty if none does.

    Raises:
        AudioError: if it is not valid.
    """
    scheme, name = parse(text)
    module = importlib.import_module(f"bridge.audio.{scheme}")
    source: AudioSource = module.source(name, playing)
    return source


def library(name: str) -> Any:
    """A library that is optional.

    Raises:
        AudioError: if it is not installed, or a library of the system that it needs is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AudioError(
            f"The library {name} is not installed ({error.name or error}).",
            "Run: pip install 'tidecast[audio]'",
        ) from error
    except OSError as error:  # PortAudio, PulseAudio
        raise AudioError(
            f"The library {name} cannot be loaded: {error}.", "On Debian and Ubuntu: sudo apt install libportaudio2"
        ) from error
