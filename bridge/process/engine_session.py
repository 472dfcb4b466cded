"""What the engine process's loop needs of a session: `engine.session.Session` has it, and so has `IdentitySession`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engine.controls import Controls
from engine.frame import Frame


class SessionSpec(Protocol):
    """Facts of the model."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def frames_per_latent(self) -> int:
        """Frames of the input that one latent frame holds."""


class ChunkHealth(Protocol):
    """What the last chunk was like; see `engine.runtime.metrics.Health`."""

    @property
    def noise(self) -> float:
        """Share of noise that was mixed in, 0..1."""

    @property
    def steps(self) -> int:
        """Denoising steps in force."""

    @property
    def stages(self) -> Mapping[str, float]:
        """ms of every stage."""

    @property
    def chunks(self) -> int:
        """Chunks begun so far."""

    @property
    def prompt(self) -> str:
        """The prompt in force, in words."""

    @property
    def missing_prompts(self) -> tuple[str, ...]:
        """Prompts that are wanted and not encoded yet."""

    @property
    def vram(self) -> float:
        """Memory in use on the accelerator in GiB."""

    @property
    def trouble(self) -> str:
        """What went wrong and how it goes on."""


class EncodedPrompt(Protocol):
    """What became of a prompt."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """Its words that the model does not know."""


class EngineSession(Protocol):
    """A model at work on one stream. Belongs to one thread, save `encode_prompt`."""

    @property
    def spec(self) -> SessionSpec:
        """Facts of the model."""

    @property
    def health(self) -> ChunkHealth:
        """What the last chunk that was collected was like."""

    @property
    def frames_needed(self) -> int:
        """How many more frames make the next chunk."""

    @property
    def arrived(self) -> bool:
        """Whether `collect` would not wait."""

    def feed(self, frame: Frame) -> None:
        """Take one more frame."""

    def begin(self, controls: Controls) -> None:
        """Take one chunk, under these controls, and set its work going."""

    def collect(self) -> list[Frame]:
        """Wait for the oldest `begin` that was not collected; the frames that are finished, oldest first."""

    def encode_prompt(self, text: str) -> EncodedPrompt:
        """Encode a prompt, so that chunks begun later can use it. Callable from any thread.

        Raises:
            TidecastError: if it cannot be encoded.
        """
