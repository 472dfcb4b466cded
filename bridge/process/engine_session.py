"""The interface through which the engine process's loop uses a session.

`engine.session.Session` and `bridge.process.identity_session.IdentitySession` implement it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engine.chunker import Chunk
from engine.controls import Controls
from engine.frame import Frame
from engine.models.vocabulary import Vocabulary


class SessionSpec(Protocol):
    """Facts of the model."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def frames_per_latent(self) -> int:
        """Input frames that one latent frame holds."""

    @property
    def frames_per_block(self) -> int:
        """Latent frames of a chunk."""

    @property
    def most_steps(self) -> int:
        """The largest number of denoising steps."""

    @property
    def batches(self) -> bool:
        """Whether the steps of successive chunks can share one forward."""

    @property
    def extra_forwards(self) -> int:
        """Forwards of a chunk besides its denoising steps."""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The only words that the model knows; None if it takes any sentence."""


class ChunkHealth(Protocol):
    """Figures of the last chunk; see `engine.runtime.metrics.Health`."""

    @property
    def noise(self) -> float:
        """Share of noise that was mixed into it, 0..1."""

    @property
    def steps(self) -> int:
        """Denoising steps in force."""

    @property
    def stages(self) -> Mapping[str, float]:
        """Duration of every stage of the engine in ms."""

    @property
    def chunks(self) -> int:
        """Chunks begun so far."""

    @property
    def prompt(self) -> str:
        """The text of the prompt in force."""

    @property
    def missing_prompts(self) -> tuple[str, ...]:
        """Prompts that the controls ask for and that are not encoded yet."""

    @property
    def loras(self) -> str:
        """The loaded LoRAs: slot, name and trigger words; empty without any."""

    @property
    def vram(self) -> float:
        """Memory in use on the accelerator in GiB."""

    @property
    def trouble(self) -> str:
        """What went wrong and what the session did about it; empty when nothing went wrong."""


class EncodedPrompt(Protocol):
    """The result of encoding a prompt."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """Words of the prompt that the model does not know."""

    @property
    def trouble(self) -> str:
        """What went wrong although the prompt can be used; empty when nothing went wrong."""


class EngineSession(Protocol):
    """A model that processes one stream. Use it from one thread, except `encode_prompt`."""

    @property
    def spec(self) -> SessionSpec:
        """Facts of the model."""

    @property
    def health(self) -> ChunkHealth:
        """Figures of the chunk that was collected last."""

    @property
    def frames_needed(self) -> int:
        """How many more frames the next chunk needs."""

    @property
    def arrived(self) -> bool:
        """Whether `collect` would return without waiting."""

    def feed(self, frame: Frame) -> None:
        """Add one frame to the next chunk."""

    def begin(self, controls: Controls) -> None:
        """Start work on the next chunk, with these controls."""

    def collect_chunks(self) -> list[Chunk]:
        """Wait for the oldest `begin` that is not yet collected; returns the chunks that it finished, oldest first.

        Each holds its finished frames, and the controls and the prompt with which it was begun.
        """

    def encode_prompt(self, text: str) -> EncodedPrompt:
        """Encode a prompt for chunks that are begun later. May be called from any thread.

        Raises:
            TidecastError: if it cannot be encoded.
        """
