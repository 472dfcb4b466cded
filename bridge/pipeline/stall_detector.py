"""Decides when the engine has stalled, so that the input is shown instead, and when it works again.

While frames come in, the engine owes an answer. When it has owed one for longer than a limit, and has computed nothing
in that time, it counts as stalled and the input is shown; the restyled picture returns with the first frame that was
captured after the stall began. The limit is a multiple of the waits of the last half minute, so that a slow model is
not mistaken for a stalled one and the output does not flap between input and restyled picture.

All times are arguments; nothing here reads a clock.
"""

from __future__ import annotations

import statistics
from collections import deque

SECOND = 1_000_000_000

MEDIAN_FACTOR = 4.0
"""The limit as a multiple of the median wait: four denoising steps take four times as long as one."""

LONGEST_FACTOR = 1.5
"""The limit as a multiple of the longest wait: a wait that has occurred once may occur again without the input being
shown."""

INITIAL_LIMIT_NS = 3 * SECOND
"""The limit until `MIN_WAITS` are known."""

MIN_WAITS = 3
"""Waits that are needed to know the engine's rhythm. The first one does not count: the engine warms up."""

WINDOW_NS = 30 * SECOND
"""Waits are kept for this time."""

MAX_WAITS = 256
"""Most waits that are kept."""

MAX_STEP_NS = SECOND // 4
"""Most that one input frame adds to the time owed: while a source pauses, the engine cannot answer."""


class StallDetector:
    """Watches one engine, from its first input frame on.

    Args:
        least_s: shortest limit in s.

    Attributes:
        stalled: whether the engine has stalled, so that the input should be shown.
        has_answered: whether the engine has returned a frame yet.
    """

    def __init__(self, least_s: float) -> None:
        self._least_ns = int(least_s * SECOND)
        self.restart()

    def restart(self) -> None:
        """Forget everything, for another engine."""
        self.stalled = self.has_answered = False
        self._stalled_ns = 0
        self._newest_ns = 0
        self._owed_ns = 0  # since the last answer
        self._idle_ns = 0  # since the last sign of work
        self._answers = 0
        self._waits: deque[tuple[int, int]] = deque(maxlen=MAX_WAITS)  # (when it ended, how long it was)

    @property
    def limit_ns(self) -> int:
        """How long the engine may owe an answer, in ns of input."""
        waits = [wait for _, wait in self._waits]
        if len(waits) < MIN_WAITS:
            return max(self._least_ns, INITIAL_LIMIT_NS)
        return max(self._least_ns, int(MEDIAN_FACTOR * statistics.median(waits)), int(LONGEST_FACTOR * max(waits)))

    def fed(self, captured_ns: int) -> None:
        """Note the capture time of the newest input frame; a repeated call with the same time changes nothing."""
        step = captured_ns - self._newest_ns
        if step <= 0:
            return
        if self._newest_ns:
            self._owed_ns += min(step, MAX_STEP_NS)
            self._idle_ns += min(step, MAX_STEP_NS)
        self._newest_ns = captured_ns
        while len(self._waits) > MIN_WAITS and captured_ns - self._waits[0][0] > WINDOW_NS:
            self._waits.popleft()
        if not self.stalled and self._idle_ns > self.limit_ns:
            self.stalled, self._stalled_ns = True, captured_ns

    def worked(self) -> None:
        """Note that the engine has computed a chunk, even if it returned none.

        When the denoising steps are raised, the stream batch returns nothing for some chunks, because those in it need
        more steps each. The engine works all the time.
        """
        self._idle_ns = 0

    def answered(self, captured_ns: int) -> bool:
        """Note that the engine returned the frame captured at this time; returns whether it may be shown."""
        self.has_answered = True
        if self._owed_ns:
            self._answers += 1
            if self._answers > 1:
                self._waits.append((self._newest_ns, self._owed_ns))
            self._owed_ns = 0
        self._idle_ns = 0
        if self.stalled and captured_ns < self._stalled_ns:
            return False
        self.stalled = False
        return True
