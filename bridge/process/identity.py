"""An engine that gives every frame back unchanged: what the bridge costs by itself. Imports no torch.

Has the part of `engine.session.Session`'s face that the engine process uses.
"""

from __future__ import annotations

from collections import deque

from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame


class IdentityEngine:
    """Gives each frame back at the next step.

    Args:
        config: only its size is used.
    """

    frames_per_chunk = 1

    def __init__(self, config: Config) -> None:
        self.config = config
        self._waiting: deque[Frame] = deque()

    @property
    def ready(self) -> bool:
        """Whether a frame waits."""
        return bool(self._waiting)

    def feed(self, frame: Frame) -> None:
        """Take one frame."""
        self._waiting.append(frame)

    def step(self, controls: Controls) -> list[Frame]:
        """The oldest waiting frame, as it is."""
        del controls
        return [self._waiting.popleft()] if self._waiting else []

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
