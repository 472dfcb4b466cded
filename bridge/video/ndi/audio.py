"""The sound of an NDI source, without its picture."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge.video.ndi.connect import connect, destroy
from bridge.video.ndi.runtime import Finder, close_at_exit, library
from engine.errors import TransportError

log = logging.getLogger(__name__)

CLOSE_S = 2.0
"""Longest wait for a read in progress when the handle is to be destroyed, in s."""

GONE_S = 1.0
"""Without sound for this long, it is checked whether the connection is still there."""


@dataclass(frozen=True, slots=True)
class NdiSamples:
    """The sound of one of NDI's frames.

    Attributes:
        samples: [channels, samples], float32; 1 is NDI's reference level.
        rate: samples per second.
        at_ns: when it arrived, by `time.monotonic_ns`.
    """

    samples: np.ndarray
    rate: int
    at_ns: int


class NdiAudio:
    """A receiver of sound alone: its connection carries no picture. Belongs to one thread, except `close`.

    Args:
        pattern: name of the source, as for an input (`bridge.video.ndi.runtime.choose`).

    Attributes:
        pattern: the same.
        name: full name of the source; empty until it was found.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.name = ""
        self._handle: Any = None
        self._finder: Finder  # made when opened
        self._heard = 0.0
        self._lock = threading.Lock()  # `close` waits for a read in progress: a destroyed handle must not be used

    def open(self) -> None:
        """Begin to look for the source.

        Raises:
            TransportError: if NDI cannot be used.
        """
        if self._handle is not None:
            return
        ndi = library()
        settings = ndi.RecvCreateV3()
        settings.bandwidth = ndi.RECV_BANDWIDTH_AUDIO_ONLY
        settings.ndi_recv_name = "Tidecast sound"
        handle = ndi.recv_create_v3(settings)
        if handle is None:
            raise TransportError("NDI could not make a receiver.", "Close other NDI programs and try again.")
        self._handle = handle
        self._finder = Finder()
        self._finder.start()
        close_at_exit(self)

    def read(self, timeout_s: float) -> NdiSamples | None:
        """The next sound; None if none comes in time. Looks for the source while it is missing.

        Raises:
            TransportError: if it is not open.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            if self._handle is None:
                raise TransportError(f"The sound of {self.pattern!r} is not open.")
            if self._finder.searching:
                found = self._finder.wait(self.pattern, 0.0 if self.name else timeout_s, self.name)
                if found is not None:
                    connect(library(), self._handle, *found)
                    self.name, self._heard = found[0], time.monotonic()
                    self._finder.stop()
            return self._capture(max(0.0, deadline - time.monotonic())) if self.name else None

    def close(self) -> None:
        """Disconnect; idempotent. A read that hangs keeps the handle."""
        if not self._lock.acquire(timeout=CLOSE_S):
            log.warning("the sound of %s hangs in NDI and is left behind", self.pattern)
            return
        try:
            handle, self._handle = self._handle, None
            if handle is not None:
                self._finder.stop()
                destroy(library(), handle)
        finally:
            self._lock.release()

    @property
    def problem(self) -> str:
        """Why nothing comes, as a sentence."""
        return f"{self.name} sends no sound." if self.name else f"Waiting for the sound of {self.pattern!r}."

    def _capture(self, timeout_s: float) -> NdiSamples | None:
        ndi = library()
        kind, _, audio, _ = ndi.recv_capture_v2(
            self._handle, int(timeout_s * 1000), want_video=False, want_metadata=False
        )
        now = time.monotonic()
        if kind == ndi.FRAME_TYPE_AUDIO:
            self._heard = now
            try:
                return NdiSamples(np.array(audio.data, np.float32), int(audio.sample_rate), time.monotonic_ns())
            finally:
                ndi.recv_free_audio_v2(self._handle, audio)
        if now - self._heard > GONE_S and not self._finder.searching:
            self._heard = now
            if ndi.recv_get_no_connections(self._handle) == 0:
                self._finder.start()
        return None
