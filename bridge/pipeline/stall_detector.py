"""Decides when the audience has waited long enough for the engine, and when the engine is back.

While frames come in, the engine owes an answer. Once it has owed one for longer than a limit, it counts as stalled and
the input is shown; the restyled picture returns with the first frame that was captured after that. The limit is a
multiple of the waits of the last half minute, so that a slow model is not taken for one that stopped, and the output
does not flap between input and restyled picture.

Arithmetic on times that are handed in; reads no clock and knows neither engine nor output.
"""

from __future__ import annotations

import statistics
from collections import deque

SECOND = 1_000_000_000

TIMES_USUAL = 4.0
"""The limit, in usual waits: going from one denoising step to four makes a chunk four times as long."""

TIMES_LONGEST = 1.5
"""The limit, in longest waits: what happened once may happen again without the input being shown."""

UNKNOWN_NS = 3 * SECOND
KNOWN = 3
"""The limit as long as the engine's rhythm is not known, and how many waits make it known (the first, in which the
engine warms up, does not count)."""

WINDOW_NS = 30 * SECOND
WINDOW = 256
"""Waits are remembered for this time, but no more than this number of them."""

STEP_NS = SECOND // 4
"""Most that one input frame adds to what is owed: while a source pauses, the engine cannot answer."""


class StallDetector:
    """Watches one engine, from its first input frame on.

    Args:
        least_s: the limit is never shorter than this, in s.

    Attributes:
        stalled: whether the input is to be shown instead of what the engine gave last.
        heard: whether the engine has answered at all.
    """

    def __init__(self, least_s: float) -> None:
        self._least_ns = int(least_s * SECOND)
        self.restart()

    def restart(self) -> None:
        """Forget everything: another engine."""
        self.stalled = self.heard = False
        self._stalled_ns = 0
        self._newest_ns = 0
        self._owed_ns = 0
        self._answers = 0
        self._waits: deque[tuple[int, int]] = deque(maxlen=WINDOW)  # (when it ended, how long it was)

    @property
    def limit_ns(self) -> int:
        """How long the engine may owe an answer, in ns of input."""
        waits = [wait for _, wait in self._waits]
        if len(waits) < KNOWN:
            return max(self._least_ns, UNKNOWN_NS)
        return max(self._least_ns, int(TIMES_USUAL * statistics.median(waits)), int(TIMES_LONGEST * max(waits)))

    def fed(self, captured_ns: int) -> None:
        """The newest input frame was captured at this time (repetitions count once)."""
        step = captured_ns - self._newest_ns
        if step <= 0:
            return
        if self._newest_ns:
            self._owed_ns += min(step, STEP_NS)
        self._newest_ns = captured_ns
        while len(self._waits) > KNOWN and captured_ns - self._waits[0][0] > WINDOW_NS:
            self._waits.popleft()
        if not self.stalled and self._owed_ns > self.limit_ns:
            self.stalled, self._stalled_ns = True, captured_ns

    def answered(self, captured_ns: int) -> bool:
        """The engine gave back the frame captured at this time; returns whether it may be shown."""
        self.heard = True
        if self._owed_ns:
            self._answers += 1
            if self._answers > 1:
                self._waits.append((self._newest_ns, self._owed_ns))
            self._owed_ns = 0
        if self.stalled and captured_ns < self._stalled_ns:
            return False
        self.stalled = False
        return True
