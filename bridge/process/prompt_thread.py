"""Encodes prompts on a thread of its own, so that frames are not delayed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from bridge.process.engine_session import EngineSession
from bridge.process.messages import Complaint
from bridge.service import Service
from engine.errors import TidecastError

log = logging.getLogger(__name__)


class PromptThread:
    """Encodes the prompts that a session is missing; the session caches the results.

    Args:
        session: the session that encodes.
        complain: called about prompts that cannot be encoded, and about words that the model does not know.
    """

    def __init__(self, session: EngineSession, complain: Callable[[Complaint], None]) -> None:
        self._session = session
        self._complain = complain
        self._wanted: tuple[str, ...] = ()
        self._failed: set[str] = set()
        self._wake = threading.Event()
        Service("prompts", self._run, lambda topic, text: complain(Complaint(topic, text))).start()

    def want(self, texts: Sequence[str]) -> None:
        """Set which prompts are missing now; replaces what was wanted before."""
        missing = tuple(text for text in texts if text not in self._failed)
        if missing != self._wanted:
            self._wanted = missing
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            for text in self._wanted:
                self._encode(text)

    def _encode(self, text: str) -> None:
        try:
            unknown = self._session.encode_prompt(text).unknown
        except TidecastError as error:
            self._failed.add(text)
            self._complain(Complaint("/prompt", str(error)))
        except Exception as error:  # the stream goes on with the previous prompt
            self._failed.add(text)
            log.exception("a prompt could not be encoded")
            self._complain(Complaint("/prompt", f"This prompt could not be encoded: {type(error).__name__}: {error}"))
        else:
            if unknown:
                words = ", ".join(unknown)
                self._complain(Complaint("/prompt", f"This model does not know: {words}. The rest is used."))
