"""Encodes prompts on a thread of its own, so that frames are not delayed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bridge.process.engine_session import EngineSession
from bridge.process.messages import Complaint
from bridge.service import Service
from engine.errors import TidecastError

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Wait before a prompt that could not be encoded is tried again, in s; doubles each time."""

RETRY_MAX_S = 320.0


@dataclass(slots=True)
class Failure:
    """A prompt that could not be encoded: the reason that was told, and when it is tried again."""

    reason: str
    wait_s: float
    due_s: float


class PromptThread:
    """Encodes the prompts that a session is missing; the session caches the results.

    A prompt that cannot be encoded is told, once for each reason, and tried again later, or at once when it is chosen
    anew: memory may have become free, a file may have come.

    Args:
        session: the session that encodes.
        complain: called about prompts that cannot be encoded, and about words that the model does not know.
    """

    def __init__(self, session: EngineSession, complain: Callable[[Complaint], None]) -> None:
        self._session = session
        self._complain = complain
        self._wanted: tuple[str, ...] = ()
        self._failures: dict[str, Failure] = {}
        self._trouble = ""
        self._wake = threading.Event()
        Service("prompts", self._run, lambda topic, text: complain(Complaint(topic, text))).start()

    def want(self, texts: Sequence[str]) -> None:
        """Set which prompts are missing now; replaces what was wanted before."""
        missing = tuple(texts)
        if missing != self._wanted:
            self._wanted = missing
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._next_try_s())
            self._wake.clear()
            wanted = self._wanted
            self._failures = {text: failure for text, failure in self._failures.items() if text in wanted}
            for text in wanted:
                failure = self._failures.get(text)
                if text in self._wanted and (failure is None or failure.due_s <= time.monotonic()):
                    self._encode(text)

    def _next_try_s(self) -> float | None:
        """Time in s until the next prompt is tried again; None if there is none."""
        if not self._failures:
            return None
        return max(0.0, min(failure.due_s for failure in self._failures.values()) - time.monotonic())

    def _encode(self, text: str) -> None:
        try:
            encoded = self._session.encode_prompt(text)
        except TidecastError as error:
            self._fail(text, str(error))
        except BaseException as error:  # also a panic of a library in Rust: the stream goes on with the previous prompt
            self._fail(text, f"This prompt could not be encoded: {type(error).__name__}: {error}", error)
        else:
            self._failures.pop(text, None)
            if encoded.unknown:
                words = ", ".join(encoded.unknown)
                self._complain(Complaint("/prompt", f"This model does not know: {words}. The rest is used."))
            if encoded.trouble and encoded.trouble != self._trouble:
                self._trouble = encoded.trouble
                self._complain(Complaint("/prompt", f"{encoded.trouble} The prompt is used all the same."))

    def _fail(self, text: str, reason: str, defect: BaseException | None = None) -> None:
        before = self._failures.get(text)
        wait_s = min(2 * before.wait_s, RETRY_MAX_S) if before is not None else RETRY_S
        self._failures[text] = Failure(reason, wait_s, time.monotonic() + wait_s)
        if before is None or before.reason != reason:
            if defect is not None:
                log.error("a prompt could not be encoded", exc_info=defect)
            self._complain(Complaint("/prompt", reason))
