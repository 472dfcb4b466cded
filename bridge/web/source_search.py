"""Looks for video sources when a page asks, which may take seconds, on a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from bridge.service import Service
from bridge.video.base import SourceInfo
from bridge.web.messages import InputsFound
from bridge.web.outbox import Outbox
from engine.errors import TidecastError

log = logging.getLogger(__name__)

PERIOD_S = 2.0
"""Shortest time between two searches."""


class SourceSearch:
    """Answers `FindInputs`, however often it is asked.

    Args:
        inputs: lists the sources that can be seen; may take seconds.
        outbox: takes what was found, or why nothing could be.
    """

    def __init__(self, inputs: Callable[[], Iterable[SourceInfo]], outbox: Outbox) -> None:
        self._inputs = inputs
        self._outbox = outbox
        self._service = Service("web-inputs", self._search)
        self._looked_s = float("-inf")

    def ask(self) -> None:
        """Begin a search, unless one is going on or was done just now. Never waits."""
        if time.monotonic() >= self._looked_s + PERIOD_S:
            self._service.start()

    def _search(self) -> None:
        try:
            self._outbox.whole(InputsFound(tuple(self._inputs())))
        except TidecastError as error:
            self._outbox.error("/tidecast/inputs", str(error))
        except Exception as error:  # a defect of one transport must not end the search for good
            log.exception("the search for sources failed")
            self._outbox.error("/tidecast/inputs", f"The search failed: {type(error).__name__}: {error}")
        finally:
            self._looked_s = time.monotonic()
