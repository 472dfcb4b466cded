"""Searches for video sources when a page asks, on a thread of its own because it may take seconds."""

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
    """Answers `FindInputs`; frequent requests share one search.

    Args:
        inputs: lists the sources that can be seen; may take seconds.
        outbox: receives the sources, or the error.
    """

    def __init__(self, inputs: Callable[[], Iterable[SourceInfo]], outbox: Outbox) -> None:
        self._inputs = inputs
        self._outbox = outbox
        self._service = Service("web-inputs", self._search)
        self._looked_s = float("-inf")

    def ask(self) -> None:
        """Start a search, unless one is running or has just ended. Never waits."""
        if time.monotonic() >= self._looked_s + PERIOD_S:
            self._service.start()

    def _search(self) -> None:
        try:
            self._outbox.state(InputsFound(tuple(self._inputs())))
        except TidecastError as error:
            self._outbox.error("/tidecast/inputs", str(error))
        except Exception as error:  # a defect of one transport must not end the search for good
            log.exception("the search for sources failed")
            self._outbox.error("/tidecast/inputs", f"The search failed: {type(error).__name__}: {error}")
        finally:
            self._looked_s = time.monotonic()
