"""The thread of one source or sink, which may hang: how its owner sees that, and how it is ended or left behind."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

log = logging.getLogger(__name__)

HANG_S = 5.0
"""A source or sink that has not returned from a call for this long hangs, in s."""


class Closable(Protocol):
    """A source or a sink."""

    def close(self) -> None:
        """Release everything."""


class EndpointThread:
    """Base of `SourceReader`, `SinkWriter` and `Listener`, which start the thread when they are complete.

    Not a `Service`: it is not restarted. Its owner starts another one.

    Attributes:
        uri: the address of the source or sink.
        ended: whether the source or sink is closed and the thread about to end.
    """

    def __init__(self, kind: str, uri: str) -> None:
        self.uri = uri
        self.ended = False
        self._kind = kind
        self._in_call_since = time.monotonic()  # infinite while it is in no call
        self._thread = threading.Thread(target=self._run, name=f"{kind} {uri[:40]}", daemon=True)

    @property
    def hangs(self) -> bool:
        """Whether the source or sink has not returned from a call for `HANG_S`."""
        return self.alive and time.monotonic() - self._in_call_since > HANG_S

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; returns whether it has ended."""
        self._thread.join(max(0.0, timeout_s))
        return not self.alive

    def _run(self) -> None:
        raise NotImplementedError

    def _close(self, endpoint: Closable | None) -> None:
        self._in_call_since = time.monotonic()
        try:
            if endpoint is not None:
                endpoint.close()
        except Exception as error:  # it is given up in any case
            log.error("the %s %s could not be closed", self._kind, self.uri, exc_info=error)
