"""Saves and opens show files for pages, on a thread of its own: the disk and a large file may take a while."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from bridge.service import Service
from bridge.show.live import LiveShow
from bridge.show.show_file import Show
from bridge.web.messages import OpenShow, SaveShow, ShowAnswer
from engine.errors import TidecastError

log = logging.getLogger(__name__)

MAX_WAITING = 4
"""Most requests that wait; more are refused."""


class ShowExchange:
    """Answers `SaveShow` and `OpenShow`, one after the other.

    Args:
        show: the running show; None if there is none to save or open.
        answer: called with each answer; must not block.
    """

    def __init__(self, show: LiveShow | None, answer: Callable[[ShowAnswer], None]) -> None:
        self._show = show
        self._answer = answer
        self._change = threading.Condition()
        self._waiting: deque[SaveShow | OpenShow] = deque()
        self._service = Service("web-show", self._run, wake=self._notice)

    def ask(self, message: SaveShow | OpenShow) -> None:
        """Take a request; it is answered later, or refused at once when too many wait. Never waits."""
        with self._change:
            full = len(self._waiting) >= MAX_WAITING
            if not full:
                self._waiting.append(message)
                self._change.notify()
        if full:
            self._answer(
                ShowAnswer(message.number, error="Too many shows are saved or opened now.", remedy="Try again.")
            )
        else:
            self._service.start()

    def stop(self) -> None:
        """End the thread; what waits is not answered."""
        with self._change:
            self._waiting.clear()
        self._service.stop()

    def _notice(self) -> None:
        with self._change:
            self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._service.stopping.is_set())
                if self._service.stopping.is_set():
                    return
                message = self._waiting.popleft()
            try:
                answer = self._done(message)
            except TidecastError as error:
                answer = ShowAnswer(message.number, error=error.message, remedy=error.remedy)
            except Exception as error:  # a defect is answered, and the next request finds the thread
                log.exception("a show could not be saved or opened")
                answer = ShowAnswer(
                    message.number, error=f"Tidecast failed to do this: {error}.", remedy="See its log."
                )
            self._answer(answer)

    def _done(self, message: SaveShow | OpenShow) -> ShowAnswer:
        if self._show is None:
            raise TidecastError("There is no show to save or to replace.")
        if isinstance(message, SaveShow):
            return ShowAnswer(message.number, data=self._show.save())
        act = self._show.open if message.replace else self._show.check
        return ShowAnswer(message.number, found=_found(act(message.data, message.origin)))


def _found(show: Show) -> dict[str, str | int]:
    return {
        "program": show.program,
        "snapshots": len(show.snapshots),
        "bindings": len(show.bindings),
        "controls": len(show.controls),
        **({"cues": len(show.cues.cue)} if show.cues is not None else {}),
    }
