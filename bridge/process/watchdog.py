"""Decides from the heartbeat when an engine process counts as hung."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.config import EngineProcessConfig
from bridge.process.heartbeat import Heartbeat, Phase

HANG_STEPS = 8.0
"""A chunk that takes this many times the longest one so far (and at least `hang_seconds`) counts as a hang."""

FIRST_STEPS = 1.5
"""The same for the first chunk, which is a warm-up: a later one may take as long if it has to warm up again."""

LOOK_S = 1.0
"""Longest time between two looks that counts as silence, in s. A longer one means that this process itself did not run
(Ctrl+Z, a laptop that slept, a debugger), and most likely the engine did not either."""


class Watchdog:
    """Measures how long an engine process has given no sign of life.

    Args:
        heartbeat: that of the process.
        config: the limits.
        clock: returns the time in s.
    """

    def __init__(
        self, heartbeat: Heartbeat, config: EngineProcessConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._heartbeat = heartbeat
        self._config = config
        self._clock = clock
        self._looked_s = clock()
        self._beat_ns = heartbeat.beat_ns
        self._silent_s = 0.0
        self._longest_step_s = 0.0

    def check(self) -> float:
        """Look at the heartbeat; call it several times a second.

        Returns:
            The silence in s that was allowed, if the process has been silent for longer; else 0.
        """
        heartbeat, now_s = self._heartbeat, self._clock()
        since_s, self._looked_s = now_s - self._looked_s, now_s
        beat_ns = heartbeat.beat_ns
        if beat_ns != self._beat_ns:
            self._beat_ns, self._silent_s = beat_ns, 0.0
        else:
            self._silent_s += min(since_s, LOOK_S)
        if heartbeat.chunks > 1:
            self._longest_step_s = max(self._longest_step_s, heartbeat.step_s)
        limit_s = self._limit_s()
        return limit_s if self._silent_s > limit_s else 0.0

    def _limit_s(self) -> float:
        """Silence in s that is allowed now. The first chunk counts as loading."""
        heartbeat, config = self._heartbeat, self._config
        first_chunk = heartbeat.phase is Phase.STEPPING and not heartbeat.chunks
        if first_chunk or heartbeat.phase in (Phase.STARTING, Phase.LOADING):
            return config.load_seconds
        return max(config.hang_seconds, FIRST_STEPS * heartbeat.first_step_s, HANG_STEPS * self._longest_step_s)
