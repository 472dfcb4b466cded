"""An engine without a model that answers late, as one with a full stream batch does: for tests of what is seen when.

It returns every frame white while the first prompt is `FLASH`, else black. How many frames it is behind is read from a
file whose path is in the environment, so that a test can change it while the engine runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bridge.process import worker
from bridge.process.identity_session import IdentitySession
from engine.chunker import Chunk
from engine.controls import Controls

FLASH = "flash"
BEHIND = "TIDECAST_TEST_FRAMES_BEHIND"
"""Variable with the path of the file that holds a number of frames."""


class LateSession(IdentitySession):
    """An `EngineSession` whose chunk is one frame, which it returns when so many others were begun after it."""

    def begin(self, controls: Controls) -> None:
        """Begin the oldest waiting frame, with these controls."""
        frame = self._waiting.popleft()
        prompt = controls.prompts()[0][0]
        pixels = np.full_like(frame.pixels, 255 if prompt == FLASH else 0)
        self._begun.append(Chunk((dataclasses.replace(frame, pixels=pixels),), controls, prompt))

    def collect_chunks(self) -> list[Chunk]:
        """The frames that are far enough behind."""
        behind = int(Path(os.environ[BEHIND]).read_text())
        return [self._begun.popleft() for _ in range(len(self._begun) - behind)]


@contextlib.contextmanager
def late_session(*_: Any) -> Iterator[LateSession]:
    """In place of `worker.open_session`."""
    yield LateSession()


def main(*arguments: Any) -> None:
    """In place of `worker.main`: the main function of the engine process."""
    worker.open_session = late_session  # type: ignore[assignment]
    worker.main(*arguments)
