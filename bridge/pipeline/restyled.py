"""The restyled frames on their way from the engine into the pacer, and whether they may be shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.pacing.pacer import Pacer
from bridge.pipeline.stall_detector import StallDetector
from engine.frame import Frame

WINDOW = 600
"""Number of frames whose times are kept."""


class Outbox(Protocol):
    """The reading end of the ring in which the engine returns frames."""

    @property
    def queued_ns(self) -> int:
        """When the frame that was read last was queued."""

    def get(self, timeout_s: float) -> Frame | None:
        """The next frame; None if there is none within the timeout."""

    def skip(self) -> int:
        """Drop every frame that waits; returns how many there were."""


class Restyled:
    """Passes finished frames to the pacer; drops them when the engine is gone or takes too long.

    Belongs to the publish thread. All times but those of the frames are arguments; nothing here reads a clock.

    Args:
        outbox: where the engine returns frames.
        history: the input frames.
        pacer: receives the frames.
        least_s: shortest time without a restyled frame, in s, after which the input is shown (see `stall_detector`).
        made: the frames that the stages make of a restyled one.
        forgotten: called when the restyled frames were dropped.

    Attributes:
        detector: decides when the engine takes too long.
        any: whether there are restyled frames to show; if not, the input is shown.
        arrived_at: when the last frames were finished, by `time.monotonic_ns()`.
    """

    def __init__(
        self,
        outbox: Outbox,
        history: FrameHistory,
        pacer: Pacer,
        least_s: float,
        made: Callable[[Frame], Sequence[Frame]],
        forgotten: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._history = history
        self._pacer = pacer
        self._made = made
        self._forgotten = forgotten
        self._chunks = 0
        self.detector = StallDetector(least_s)
        self.any = False
        self.arrived_at: deque[int] = deque(maxlen=WINDOW)

    def collect(self, running: bool, chunks: int, now_ns: int) -> None:
        """Take every frame that is finished.

        Args:
            running: whether there is an engine that gives frames.
            chunks: chunks that it has computed so far; those still in the stream batch count too.
            now_ns: the time.
        """
        detector = self.detector
        if not running:
            detector.restart()
            self._history.forget()
            if self.any:
                self._outbox.skip()
                self._forget()
            return
        if chunks != self._chunks:
            self._chunks = chunks
            detector.worked()
        while (frame := self._outbox.get(0.0)) is not None:
            self.arrived_at.append(self._outbox.queued_ns)
            if detector.answered(frame.captured_ns):
                self.any = True
                self._offer(frame, self._outbox.queued_ns, now_ns)
            else:
                self._pacer.wet.late += 1
        if self._history.newest is not None:
            detector.fed(self._history.newest.captured_ns)
        if detector.stalled and self.any:
            self._forget()

    def _offer(self, frame: Frame, queued_ns: int, now_ns: int) -> None:
        """Run the stages on a restyled frame and pass the results to the pacer.

        The frame itself was ready when it was queued; frames that a stage made are ready now.
        """
        for made in self._made(frame):
            self._pacer.wet.offer(made, queued_ns if made is frame else now_ns)

    def _forget(self) -> None:
        self.any = False
        self._pacer.forget("wet")
        self._forgotten()
