"""A session that gives every frame back unchanged: what the bridge costs by itself. Imports no torch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from engine.controls import Controls
from engine.frame import Frame


@dataclass(frozen=True, slots=True)
class IdentitySpec:
    """Facts of the model that there is none of."""

    name: str = "identity"
    frames_per_latent: int = 1


@dataclass(frozen=True, slots=True)
class IdentityHealth:
    """A chunk of one frame, to which nothing was done."""

    noise: float = 0.0
    steps: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    chunks: int = 0
    prompt: str = ""
    missing_prompts: tuple[str, ...] = ()
    vram: float = 0.0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class NoPrompt:
    """What became of a prompt that nobody reads."""

    unknown: tuple[str, ...] = ()


class IdentitySession:
    """An `EngineSession` whose chunk is one frame and whose model changes nothing."""

    def __init__(self) -> None:
        self.spec = IdentitySpec()
        self.health = IdentityHealth()
        self._waiting: deque[Frame] = deque()
        self._begun: deque[Frame] = deque()

    @property
    def frames_needed(self) -> int:
        """Frames that make the next chunk: one, unless it waits already."""
        return 0 if self._waiting else 1

    @property
    def arrived(self) -> bool:
        """Whatever was begun is finished."""
        return True

    def feed(self, frame: Frame) -> None:
        """Take one frame."""
        self._waiting.append(frame)

    def begin(self, controls: Controls) -> None:
        """Take the oldest frame that waits; controls change nothing."""
        if self._waiting:
            self._begun.append(self._waiting.popleft())
            self.health = replace(self.health, chunks=self.health.chunks + 1)

    def collect(self) -> list[Frame]:
        """The oldest frame that was begun, as it came."""
        return [self._begun.popleft()] if self._begun else []

    def encode_prompt(self, text: str) -> NoPrompt:
        """Nothing to encode."""
        return NoPrompt()
