"""Opens one sink, sends the newest picture to it and closes it, on a thread of its own.

A sink can hang, as a source can (see `source_reader`): a library that waits for the network, a display driver. Python
cannot end such a thread, so it is left behind and another one serves the output. The handles of a library belong to the
thread that uses them, so this thread does everything with its sink, closing included.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from bridge.pipeline.endpoints.endpoint_thread import EndpointThread
from bridge.process.priority import raise_thread_priority
from bridge.video.base import Options, Sink
from bridge.video.errors import reason
from bridge.video.opening import open_sink
from engine.errors import TidecastError
from engine.frame import Frame

log = logging.getLogger(__name__)

REOPEN_S = 1.0
"""An output that has failed for this long is closed, to be opened again, in s."""


class SinkWriter(EndpointThread):
    """One sink, from its opening to its closing.

    Not a `Service`: it is not restarted. Its thread ends when it is told to or when the sink fails for long, and
    `Output` starts another one.

    Args:
        uri, options: the sink.
        sent: called after every frame that was sent, with the writer, the frame and what `put` was given with it, on
            the writer's thread.

    Attributes:
        first_attempt: set when the sink is open, or could not be opened.
        error: why the sink could not be opened or has been given up; None while it works and when it was told to end.
        ended: whether the sink is closed and the thread about to end.
        works: whether the last frame could be sent.
        trouble: why not, as a sentence; empty while it works.

    Raises:
        RuntimeError: the system has no thread to give.
    """

    def __init__(
        self,
        uri: str,
        options: Options,
        sent: Callable[[SinkWriter, Frame, bool], None],
    ) -> None:
        super().__init__("output", uri)
        self.first_attempt = threading.Event()
        self.error: Exception | None = None
        self.works = False
        self.trouble = ""
        self._options = options
        self._sent = sent
        self._newest: deque[tuple[Frame, bool]] = deque(maxlen=1)
        self._there = threading.Semaphore(0)  # released for each frame, and to end
        self._ending = False
        self._failing_since = 0.0  # 0: it works
        self._thread.start()

    def put(self, frame: Frame, new: bool) -> bool:
        """Have a frame sent; returns at once.

        Args:
            frame: the frame, which nobody changes any more.
            new: passed on to `sent`.

        Returns:
            Whether the one before had been taken; else this one replaces it.
        """
        taken = not self._newest
        self._newest.append((frame, new))
        self._there.release()
        return taken

    def end(self) -> None:
        """Have the sink closed; returns at once."""
        self._ending = True
        self._there.release()

    def _run(self) -> None:
        raise_thread_priority()
        sink: Sink | None = None
        try:
            sink = open_sink(self.uri, self._options)
            self._in_call_since = float("inf")
            self.first_attempt.set()
            while self._send_next(sink):
                pass
        except Exception as error:  # whatever a sink raises, the show goes on without it
            self.error = error
            if not self.first_attempt.is_set():
                self._in_trouble(error, "cannot be opened")
        finally:
            self._close(sink)
            self.ended = True
            self.first_attempt.set()

    def _send_next(self, sink: Sink) -> bool:
        """Wait for the next frame and send it; returns whether to go on.

        Raises:
            Exception: what the sink raised, if it has failed for `REOPEN_S`.
        """
        self._there.acquire()
        if self._ending:
            return False
        try:
            frame, new = self._newest.popleft()
        except IndexError:  # it was released twice before the newer of the two was taken
            return True
        self._in_call_since = time.monotonic()
        try:
            sink.send(
                frame,
                {
                    **frame.metadata,  # in a restyled frame: the prompt, strength and steps it was made with
                    "seq": str(frame.seq),
                    "captured_ns": str(frame.captured_ns),
                    "shows_ns": str(frame.shows_ns),
                    "sent_ns": str(time.monotonic_ns()),
                },
            )
        except Exception as error:
            self.works = False
            self._failing_since = self._failing_since or time.monotonic()
            self._in_trouble(error, "cannot send")
            if time.monotonic() - self._failing_since >= REOPEN_S:
                raise
            return True
        finally:
            self._in_call_since = float("inf")
        self._failing_since, self.works, self.trouble = 0.0, True, ""
        self._sent(self, frame, new)
        return True

    def _in_trouble(self, error: Exception, what: str) -> None:
        known = isinstance(error, TidecastError)
        text = str(error) if known else f"{self.uri} {what}: {reason(error)}."
        if not known and text != self.trouble:
            log.error("the output %s %s", self.uri, what, exc_info=error)
        self.trouble = text
