"""The output on the publish thread: whatever it raises is reported, and it is opened again while the show goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from bridge.pipeline.endpoints.retry import Backoff
from bridge.video.base import Options, Sink
from bridge.video.errors import reason
from bridge.video.opening import open_sink
from engine.errors import TidecastError
from engine.frame import Frame

log = logging.getLogger(__name__)

REOPEN_S = 1.0
"""An output that has failed for this long is closed and opened again, in s."""


class Output:
    """One sink. Belongs to the publish thread.

    Args:
        uri, options: the sink.
        tell: called with (topic, text) when it fails, but not again with the same text until it has worked.
    """

    def __init__(self, uri: str, options: Options, tell: Callable[[str, str], None]) -> None:
        self._uri = uri
        self._options = options
        self._tell = tell
        self._sink: Sink | None = None
        self._failing_since = 0.0  # 0: it works
        self._told = ""
        self._backoff = Backoff()

    def open(self) -> None:
        """Open the sink.

        Raises:
            NameTakenError: another sender has its name.
            TransportError: it cannot be opened.
        """
        if self._sink is None:
            self._sink = open_sink(self._uri, self._options)

    def send(self, frame: Frame, metadata: Mapping[str, str]) -> bool:
        """Send one frame; returns whether that worked. Opens the sink again when it has failed for a while."""
        try:
            if self._sink is None:
                if not self._backoff.over:
                    return False
                self.open()
            assert self._sink is not None
            self._sink.send(frame, metadata)
        except Exception as error:  # whatever a sink raises, the show goes on without it
            self._failed(error)
            return False
        self._failing_since, self._told = 0.0, ""
        self._backoff.worked()
        return True

    def close(self) -> None:
        """Close the sink; idempotent."""
        sink, self._sink = self._sink, None
        try:
            if sink is not None:
                sink.close()
        except Exception as error:  # it is given up in any case
            log.error("the output %s could not be closed", self._uri, exc_info=error)

    def _failed(self, error: Exception) -> None:
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if self._sink is None:
            self._backoff.failed()  # it could not be opened
        elif now - self._failing_since >= REOPEN_S:
            self._backoff.failed()
            self.close()
        text = str(error) if isinstance(error, TidecastError) else f"{self._uri} cannot send: {reason(error)}."
        if text != self._told:
            self._told = text
            if not isinstance(error, TidecastError):
                log.error("the output %s failed", self._uri, exc_info=error)
            self._tell("output", text)
