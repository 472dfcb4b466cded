"""A session that returns every frame unchanged, to measure what the bridge itself costs. Imports no torch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from engine.chunker import Chunk
from engine.controls import Controls
from engine.frame import Frame


@dataclass(frozen=True, slots=True)
class PlainSpec:
    """What stands for the facts of a model where there is none; see `SessionSpec`."""

    name: str = "identity"
    frames_per_latent: int = 1
    frames_per_block: int = 1
    most_steps: int = 4
    batches: bool = True
    extra_forwards: int = 0
    vocabulary: None = None


@dataclass(frozen=True, slots=True)
class PlainHealth:
    """Figures of a chunk that no model computed; see `ChunkHealth`."""

    noise: float = 0.0
    steps: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    chunks: int = 0
    prompt: str = ""
    missing_prompts: tuple[str, ...] = ()
    loras: str = ""
    vram: float = 0.0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class NoPrompt:
    """The result of encoding a prompt that is not used."""

    unknown: tuple[str, ...] = ()
    trouble: str = ""


class IdentitySession:
    """An `EngineSession` whose chunk is one frame, which it returns unchanged."""

    def __init__(self) -> None:
        self.spec = PlainSpec()
        self.health = PlainHealth()  # `chunks` stays 0: nothing is computed, so there is no cost to learn
        self._waiting: deque[Frame] = deque()
        self._begun: deque[Chunk] = deque()

    @property
    def frames_needed(self) -> int:
        """Frames that the next chunk needs: one, unless one is waiting."""
        return 0 if self._waiting else 1

    @property
    def arrived(self) -> bool:
        """Always: what was begun is finished at once."""
        return True

    def feed(self, frame: Frame) -> None:
        """Add one frame."""
        self._waiting.append(frame)

    def begin(self, controls: Controls) -> None:
        """Begin the oldest waiting frame. It keeps the controls, which change nothing."""
        if self._waiting:
            self._begun.append(Chunk((self._waiting.popleft(),), controls))

    def collect_chunks(self) -> list[Chunk]:
        """The oldest frame that was begun, unchanged."""
        return [self._begun.popleft()] if self._begun else []

    def encode_prompt(self, text: str) -> NoPrompt:
        """Do nothing."""
        return NoPrompt()
