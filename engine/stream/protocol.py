"""The interface of a stream, as a session, a benchmark or the warm-up uses it, in one process or several.

A stream takes chunks of video and returns the restyled chunks that are finished. For one chunk, call `encode`, then
`denoise`, and then `decode` for every chunk that `denoise` returned, in that order.

Two classes implement it: `engine.stream.stream.LocalStream` in one process, and
`engine.distributed.pipeline_stream.PipelineStream` with one process (rank) per GPU. Both contain
`engine.stream.ends.VideoEnds` for the steps before and after the network.

Shape letters: C latent channels, F latent frames of a chunk, h w latent size, T pixel frames, H W pixels, X tokens and
E width of a text embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor

from engine.network.lora.live import LoraTarget
from engine.stream.ends import NoiseSource
from engine.stream.kv_cache import Rule
from engine.stream.noise import NoiseRule
from engine.stream.state import Ticket
from engine.stream.timesteps import Steps


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """The state of a stream between two chunks: all that is needed to continue it.

    Attributes:
        tensors: the tensors, by name.
        facts: the other values, as JSON can hold them. "flights" has one entry per row of the stream batch in use.
        tickets: for each of these rows, what the caller passed to `denoise`; None for a row without a chunk.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    tickets: Sequence[Ticket]


class StreamSettings(TypedDict):
    """What both streams are made with, apart from the model itself.

    Attributes:
        height, width: size of the frames in pixels.
        noise: source of noise.
        rule: how the cache treats sink frames.
        noise_rule: how motion lowers the noise.
        batch: whether the denoising steps of successive chunks share one forward (stream batch).
        max_steps: largest number of denoising steps of a chunk.
    """

    height: int
    width: int
    noise: NoiseSource
    rule: Rule
    noise_rule: NoiseRule
    batch: bool
    max_steps: int


class Stream(Protocol):
    """One stream of video of one size."""

    max_steps: int
    """Largest number of denoising steps of a chunk."""

    @property
    def loras(self) -> LoraTarget:
        """The LoRAs that change the network's weights."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the pixels that are passed in and returned."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the network computes."""
        ...

    @property
    def begun(self) -> bool:
        """Whether the first chunk has been denoised or is in flight."""
        ...

    @property
    def in_flight(self) -> int:
        """Number of chunks that have been started but are not finished."""
        ...

    @property
    def noise_share(self) -> Tensor:
        """Share of noise mixed into the newest chunk: fp64 scalar on the device, overwritten by the next chunk."""
        ...

    def set_prompt(self, embedding_XE: Tensor) -> None:
        """Use this prompt from the next forward on, for all chunks in flight; the KV cache is kept."""
        ...

    def encode(self, video_3THW: Tensor, steps: Steps, motion: float = 1.0) -> tuple[Tensor, Tensor]:
        """Encode the next chunk and mix noise into its latents.

        Args:
            video_3THW: pixels in [-1, 1].
            steps: noise levels of the chunk.
            motion: how much motion in the input lowers the noise, 0 to 1.

        Returns:
            The noisy latents [1, C, F, h, w] and the first timestep (int64 scalar on the device).
        """
        ...

    def denoise(
        self, x_1CFhw: Tensor, first: Tensor, timesteps: tuple[int, ...], ticket: Ticket, anchor: bool = False
    ) -> list[tuple[Ticket, Tensor]]:
        """Start to denoise a chunk, and run the next denoising step of the chunks in flight.

        Args:
            x_1CFhw: noisy latents from `encode`.
            first: first timestep from `encode`; replaces `timesteps[0]`.
            timesteps: one per denoising step, decreasing.
            ticket: any object but None; it is returned with the chunk's result.
            anchor: whether the chunk's frames replace the sink frames of the KV cache.

        Returns:
            (ticket, clean latents [1, C, F, h, w]) of every chunk that is finished, oldest first. A chunk that has had
            as many steps as `timesteps` has is finished too, even if it was started with more.
        """
        ...

    def decode(self, clean_1CFhw: Tensor) -> Tensor:
        """Decode the clean latents of the next finished chunk to pixels in [-1, 1]: [3, T, H, W]."""
        ...

    def flush(self) -> list[tuple[Ticket, Tensor]]:
        """Finish the chunks in flight with the steps that they have had. Call `reset` afterwards.

        Returns:
            As `denoise`.
        """
        ...

    def reset(self) -> None:
        """Clear the KV cache and all other state, and drop the chunks in flight; the prompt is kept.

        After a reset the stream gives the same results as a new one.
        """
        ...

    def save(self) -> Saved:
        """The state between two chunks. The tensors are the stream's own: copy them before the next call.

        Raises:
            ModelError: if this stream cannot be saved.
        """
        ...

    def restore(self, saved: Saved) -> None:
        """Continue from a saved state. The caller has to set the prompt again.

        Raises:
            ModelError: if this stream cannot be restored, or `saved` has tensors of other names, shapes or types.
                Settings that show in none of these are compared by the caller (`saved_state.compare`).
        """
        ...

    def rank_losses(self) -> tuple[tuple[int, ...], list[Ticket]]:
        """After `RankLostError`: the lost ranks, and the tickets of the chunks in flight, oldest first."""
        ...

    def close(self) -> None:
        """Stop the other processes, if there are any; idempotent."""
        ...
