"""Opens one source of sound, listens to it and closes it, on a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from bridge.audio.analysis import SILENCE, Analysis, Features, Settings
from bridge.audio.proposal import Proposal
from bridge.audio.source import AudioSource
from bridge.pipeline.endpoints.endpoint_thread import EndpointThread
from engine.errors import TidecastError

log = logging.getLogger(__name__)

READ_S = 0.1
"""Longest wait for sound in one call, in s."""

QUIET_S = 0.25
"""After this long without data nothing is heard: the readings are 0."""

LOOK_S = 1.0
"""Time between two looks for the tempo."""


class Listener(EndpointThread):
    """One source of sound, from its opening to its closing. The service starts another one when it has ended.

    Args:
        uri: its name.
        make: makes the source.
        settings: returns the controls.
        heard: called with the listener, the readings and when the sound arrived, on the listener's thread.

    Attributes:
        error: why it has ended, as a sentence; empty if it was told to end.
        title: what is heard; empty until it is known.
        problem: why nothing comes, as a sentence; else empty.
        running: whether sound comes.
        bpm: the tempo that is heard; 0 while none is.
    """

    def __init__(
        self,
        uri: str,
        make: Callable[[], AudioSource],
        settings: Callable[[], Settings],
        heard: Callable[[Listener, Features, int], None],
    ) -> None:
        super().__init__("audio", uri)
        self.error = self.title = self.problem = ""
        self.running = False
        self.bpm = 0.0
        self._make = make
        self._settings = settings
        self._heard = heard
        self._ending = False
        self._analysis: Analysis | None = None
        self._proposal: Proposal | None = None
        self._heard_s = self._look_s = 0.0
        self._thread.start()

    def end(self) -> None:
        """Have the source closed; returns at once."""
        self._ending = True

    def _run(self) -> None:
        source: AudioSource | None = None
        try:
            source = self._make()
            source.open()
            while not self._ending:
                self._listen(source)
        except TidecastError as error:
            self.error = str(error)
        except Exception as error:  # whatever a library raises, the sound is opened again
            log.error("the sound %s has failed", self.uri, exc_info=error)
            self.error = f"{self.uri} has failed: {type(error).__name__}: {error}."
        finally:
            self._quiet()
            self._close(source)
            self.ended = True

    def _listen(self, source: AudioSource) -> None:
        self._in_call_since = time.monotonic()
        block = source.read(READ_S)
        self._in_call_since = float("inf")
        self.title, self.problem = source.title, source.problem
        now = time.monotonic()
        if block is None:
            if self.running and now - self._heard_s > QUIET_S:
                self._quiet()
            return
        self._heard_s, self.running = now, True
        analysis, proposal = self._analysis, self._proposal
        if analysis is None or proposal is None or analysis.rate != block.rate:
            analysis = self._analysis = Analysis(block.rate)
            proposal = self._proposal = Proposal(block.rate / analysis.hop)
        self._heard(self, analysis.feed(block.samples, self._settings()), block.at_ns)
        if now >= self._look_s:
            self._look_s = now + LOOK_S
            proposal.add(analysis.take_strengths())
            self.bpm = proposal.bpm

    def _quiet(self) -> None:
        """Nothing comes: nothing is heard, and the next sound begins anew."""
        self.running, self.bpm, self._analysis = False, 0.0, None
        self._heard(self, SILENCE, time.monotonic_ns())
