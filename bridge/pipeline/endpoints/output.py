"""One output: whatever its sink does, the publish thread never waits for it, and it is opened again when it failed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from bridge.pipeline.endpoints.endpoint_thread import HANG_S
from bridge.pipeline.endpoints.opening import START_S
from bridge.pipeline.endpoints.retry import Backoff
from bridge.pipeline.endpoints.sink_writer import SinkWriter
from bridge.video.address import check_output
from bridge.video.base import Options
from bridge.video.errors import reason
from engine.errors import TransportError
from engine.frame import Frame

WINDOW = 600
"""Frames whose times are kept."""

MAX_LEFT = 4
"""Writers that may still be closing or hanging when another one is started. With more of them it has to wait, so that
an output that hangs again and again does not fill the machine with threads."""


class Output:
    """Sends pictures to one sink, through a writer that is replaced when it fails or hangs.

    Args:
        uri, options: the sink.
        tell: called with (topic, text) when it fails, but not again with the same text until it has worked.

    Attributes:
        uri: the sink's address.
        sent: frames sent since the start.
        sent_at: `time.monotonic_ns()` of the last frames sent.
        longest_gap_ms: longest time between two sends since it was last set to 0.
        skipped: frames that were replaced by newer ones before the sink took them.
        trouble: why it does not send, as a sentence; empty while it works.
        shown: called with (frame, time in ns) after each frame that was sent and is new; set by the publisher.

    Raises:
        TransportError: there is no such transport, or it has no output.
    """

    def __init__(self, uri: str, options: Options, tell: Callable[[str, str], None]) -> None:
        check_output(uri)
        self.uri = uri
        self.sent = 0
        self.sent_at: deque[int] = deque(maxlen=WINDOW)
        self.longest_gap_ms = 0.0
        self.skipped = 0
        self.trouble = ""
        self.shown: Callable[[Frame, int], None] = lambda frame, sent_ns: None
        self._options = options
        self._tell = tell
        self._writer: SinkWriter | None = None
        self._left: list[SinkWriter] = []  # told to end, and not known to have ended
        self._backoff = Backoff()

    def start(self) -> None:
        """Open the sink and wait until it is open; does nothing when it is. Without it, the first `offer` opens it.

        Raises:
            NameTakenError: another sender has its name.
            TransportError: it cannot be opened, or has not opened after `START_S`.
        """
        if self._writer is not None:
            return
        writer = self._begin()
        if not writer.first_attempt.wait(START_S):
            self._leave()
            raise TransportError(
                f"The output {self.uri} has not opened within {START_S:g} s.", "Check it, or choose another."
            )
        if writer.error is not None:
            self._leave()
            raise writer.error

    def end(self) -> None:
        """Have the sink closed; returns at once."""
        self._leave()

    def join(self, timeout_s: float) -> bool:
        """Wait until the sinks are closed; returns whether they are. One that hangs is left behind."""
        deadline = time.monotonic() + timeout_s
        return all([writer.join(deadline - time.monotonic()) for writer in self._left])

    def offer(self, frame: Frame, new: bool) -> None:
        """Have a frame sent; never waits. Opens the sink again after it has failed. On the publish thread.

        Args:
            frame: the frame, which nobody changes any more.
            new: whether it was not offered before, so that its latency counts.
        """
        writer = self._living()
        if writer is None:
            self._left = [left for left in self._left if left.alive]
            if len(self._left) >= MAX_LEFT or not self._backoff.over:
                return
            try:
                writer = self._begin()
            except RuntimeError as error:  # the system has no threads left
                self._backoff.failed()
                self._say(f"{self.uri} cannot be opened: {reason(error)}.")
                return
        if not writer.put(frame, new):
            self.skipped += 1

    def _living(self) -> SinkWriter | None:
        """The writer, unless it has failed or hangs; says what is wrong with it."""
        writer = self._writer
        if writer is None:
            return None
        hangs = writer.hangs
        self._say(f"{self.uri} takes no pictures: it has not answered for {HANG_S:g} s." if hangs else writer.trouble)
        if hangs or writer.ended:
            self._leave()
            self._backoff.failed()
            return None
        if writer.works:
            self.trouble = ""
            self._backoff.worked()
        return writer

    def _begin(self) -> SinkWriter:
        self._writer = SinkWriter(self.uri, self._options, self._sent)
        return self._writer

    def _leave(self) -> None:
        """Have the writer close its sink. Nothing that it still does counts."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.end()
            self._left.append(writer)

    def _sent(self, writer: SinkWriter, frame: Frame, new: bool) -> None:
        if writer is not self._writer:
            return
        now = time.monotonic_ns()
        if self.sent_at:
            self.longest_gap_ms = max(self.longest_gap_ms, (now - self.sent_at[-1]) / 1e6)
        self.sent_at.append(now)
        self.sent += 1
        if new:
            self.shown(frame, now)

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            self.trouble = trouble
            self._tell("output", trouble)
