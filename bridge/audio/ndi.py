"""The sound of an NDI source: of the one whose picture plays, or of another."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.audio.source import AudioError, AudioSource, Block, mono
from bridge.video.ndi.audio import NdiAudio
from engine.errors import TransportError

IDLE_S = 0.1
"""Pause while no NDI source plays."""


class NdiSound(AudioSource):
    """The sound of one NDI source, over a connection of its own: the picture does not wait for it.

    Args:
        name: of the source, as in `ndi:NAME` for an input; empty for the one that plays.
        playing: the full name of the one that plays; empty if none does.
    """

    def __init__(self, name: str, playing: Callable[[], str]) -> None:
        self._name = name
        self._playing = playing
        self._receiver: NdiAudio | None = None

    def open(self) -> None:
        """Begin to look for the source."""
        self._follow()

    def read(self, timeout_s: float) -> Block | None:
        """The next block."""
        receiver = self._follow()
        if receiver is None:
            time.sleep(min(timeout_s, IDLE_S))
            return None
        got = receiver.read(timeout_s)
        if got is None:
            self.problem = receiver.problem
            return None
        self.problem, self.title = "", f"NDI {receiver.name}, {got.rate} Hz"
        return Block(mono(got.samples.T), got.rate, got.at_ns)

    def close(self) -> None:
        """Disconnect."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()

    def _follow(self) -> NdiAudio | None:
        """The receiver of the source that is to be heard now."""
        wanted = self._name or self._playing()
        if self._receiver is not None and self._receiver.pattern == wanted:
            return self._receiver
        self.close()
        self.title = ""
        self.problem = "" if wanted else "No NDI source plays: choose one as the input, or ndi:NAME."
        if wanted:
            receiver = NdiAudio(wanted)
            try:
                receiver.open()
            except TransportError as error:
                raise AudioError(error.message, error.remedy) from error
            self._receiver = receiver
        return self._receiver


def source(name: str, playing: Callable[[], str]) -> NdiSound:
    """The sound of the source of this name."""
    return NdiSound(name, playing)
