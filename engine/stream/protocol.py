"""What a stream is to those who play it: a session, a benchmark, the warm-up. One process or several, they see no more.

A stream takes chunks of video, and gives back whatever chunks are finished. Two implementations, by composition:
`engine.stream.stream.LocalStream` (one process) and `engine.distributed.pipeline_stream.PipelineStream` (one rank a
GPU). Both hold `engine.stream.ends.VideoEnds` for what happens before and after the network.

One chunk is `encode`, `denoise`, and for every chunk that `denoise` finished, in that order, `decode`.

Shape letters: C latent channels, F latent frames of a chunk, h w latent size, T pixel frames, H W pixels, X tokens and
E width of a text embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.stream.timesteps import Steps


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """Everything of a stream that outlives a chunk.

    Attributes:
        tensors: by name.
        facts: counts, as JSON takes them. "flights" has one entry a row of the stream batch.
        tickets: what the caller gave to `denoise` with each of these rows; None for a row without a chunk.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    tickets: list[Any]


class Stream(Protocol):
    """One stream of one picture size."""

    max_steps: int
    """Most denoising steps that a chunk can have."""

    @property
    def device(self) -> torch.device:
        """Where pixels are taken and given back."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the network."""
        ...

    @property
    def begun(self) -> bool:
        """Whether the first block has been seen."""
        ...

    @property
    def in_flight(self) -> int:
        """Chunks that were begun and are not finished."""
        ...

    @property
    def noise_share(self) -> Tensor:
        """Share of noise that was mixed into the newest chunk: fp64 scalar on the device, overwritten by the next."""
        ...

    def set_prompt(self, embedding_XE: Tensor) -> None:
        """Make this prompt the one in force, from the next forward on; the history stays."""
        ...

    def encode(self, video_3THW: Tensor, steps: Steps, motion: float = 1.0) -> tuple[Tensor, Tensor]:
        """Encode the next chunk's pixels in [-1, 1] and mix noise into them.

        Returns:
            The noisy latents [1, C, F, h, w] and the first timestep (int64 scalar on the device).
        """
        ...

    def denoise(
        self, x_1CFhw: Tensor, first: Tensor, timesteps: tuple[int, ...], ticket: Any, anchor: bool = False
    ) -> list[tuple[Any, Tensor]]:
        """Send noisy latents on their way through `timesteps`, of which `first` replaces the first.

        Args:
            ticket: whatever the caller wants back with the result; not None.
            anchor: whether these frames replace the cache's sinks.

        Returns:
            (ticket, clean latents [1, C, F, h, w]) of every chunk that is finished, oldest first. A chunk with
            more steps than the newest one is finished with as many as that.
        """
        ...

    def decode(self, clean_1CFhw: Tensor) -> Tensor:
        """Clean latents of the next finished chunk to pixels in [-1, 1]: [3, T, H, W]."""
        ...

    def flush(self) -> list[tuple[Any, Tensor]]:
        """End the chunks in flight as far as they are, oldest first: as from `denoise`. Then `reset` the stream."""
        ...

    def reset(self) -> None:
        """Forget the history and whatever is in flight; the prompt stays. A stream that was reset equals a new one."""
        ...

    def save(self) -> Saved:
        """Everything that outlives a chunk; the tensors are the stream's own, to be copied before the next call.

        Raises:
            ModelError: if this stream cannot be saved.
        """
        ...

    def restore(self, saved: Saved) -> None:
        """Go on where the stream that gave `saved` was. The prompt is read anew by the caller.

        Raises:
            ModelError: if this stream cannot be resumed, or `saved` is of another size, batch or cache.
        """
        ...

    def rank_losses(self) -> tuple[tuple[int, ...], list[Any]]:
        """After a loss: ranks that are gone, and the tickets of the chunks in flight, oldest first."""
        ...

    def close(self) -> None:
        """End what runs beside this process. May be called again."""
        ...
