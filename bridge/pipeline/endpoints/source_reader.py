"""Opens, reads and closes one source, on a thread of its own.

A source can hang: a file on a network drive that is gone, a camera whose driver waits, a library that never returns.
Python cannot end such a thread, so it is left behind and another one serves the next source. The handles of a library
belong to the thread that uses them, so this thread does everything with its source, closing included.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from bridge.pipeline.endpoints.endpoint_thread import EndpointThread
from bridge.process.priority import raise_thread_priority
from bridge.video.base import Options, Source, SourceInfo
from bridge.video.errors import reason
from bridge.video.opening import open_source
from engine.errors import TidecastError
from engine.frame import Frame

log = logging.getLogger(__name__)

READ_S = 0.1
"""Longest wait for a frame in one call of the source, in s."""


class SourceReader(EndpointThread):
    """One source, from its opening to its closing.

    Not a `Service`: it is not restarted. Its thread ends when it is told to or when the source fails, and `Capture`
    starts another one.

    Args:
        uri, options: the source.
        opened: called when the source is open, before the first frame.
        take: called with every frame.
        at_end: called at the end. All three are called on the reader's thread with the reader as the first argument.

    Attributes:
        uri: the source's address.
        ended: whether the source has failed or was told to end, and has been closed.
        error: why it has ended, as a sentence; empty if it was told to end.
        info: name, size and rate as last seen; None before it was opened.
        problem: why it gives no frames, as a sentence; empty when there is no problem.
        skipped: frames that were replaced by newer ones before they could be read.
    """

    def __init__(
        self,
        uri: str,
        options: Options,
        opened: Callable[[SourceReader], None],
        take: Callable[[SourceReader, Frame], None],
        at_end: Callable[[SourceReader], None],
    ) -> None:
        super().__init__("input", uri)
        self.error = ""
        self.info: SourceInfo | None = None
        self.problem = ""
        self.skipped = 0
        self._options = options
        self._opened = opened
        self._take = take
        self._at_end = at_end
        self._ending = threading.Event()
        self._thread.start()

    def end(self) -> None:
        """Have the source closed; returns at once."""
        self._ending.set()

    def _run(self) -> None:
        raise_thread_priority()
        source: Source | None = None
        doing = "cannot be opened"
        try:
            source = open_source(self.uri, self._options)
            self.info = source.info
            self._in_call_since = float("inf")
            self._opened(self)
            doing = "has failed"
            while not self._ending.is_set():
                self._read(source)
        except TidecastError as error:
            self.error = str(error)
        except Exception as error:  # whatever a source raises, the show goes on with another one
            log.error("the input %s %s", self.uri, doing, exc_info=error)
            self.error = f"{self.uri} {doing}: {reason(error)}."
        finally:
            self._close(source)
            self.ended = True
            self._at_end(self)

    def _read(self, source: Source) -> None:
        self._in_call_since = time.monotonic()
        frame = source.read(READ_S)
        self._in_call_since = float("inf")
        self.info, self.problem, self.skipped = source.info, source.problem, source.skipped
        if frame is not None and not self._ending.is_set():
            self._take(self, frame)
