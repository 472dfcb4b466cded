"""What happens to a chunk before and after the network: pixels to noisy latents, clean latents to pixels.

Held by every stream, of one process or several. The share of noise follows the motion (StreamDiffusionV2, arXiv
2511.07399, motion-aware noise controller); latents and noise are mixed as in flow matching, x = s noise + (1 - s) mean.
The autoencoder is causal in time: what it remembers of the frames before is in `encoder` and `decoder`.

Shape letters: C latent channels, F latent frames of a chunk, h w latent size, T pixel frames, H W pixels.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from engine.models.spec import Codec, ModelSpec
from engine.stream.noise import NoiseController, NoiseRule
from engine.stream.state import Runner, WorkKey, run_directly
from engine.stream.timesteps import Steps, mix


class NoiseSource(Protocol):
    """Where Gaussian noise comes from."""

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """Noise [count, C, frames, h, w] to arrive at steps `step`, `step` + 1, ... (0 is the encoded picture)."""
        ...


class VideoEnds:
    """A stream's two ends, and their memory.

    Args:
        spec: the model's row.
        codec: its video autoencoder.
        noise: where noise comes from.
        rule: how motion lowers the noise.
        height, width: pixels.
        device: where pixels and latents are.

    Attributes:
        run: gets the heavy work done.
    """

    def __init__(
        self,
        spec: ModelSpec,
        codec: Codec,
        noise: NoiseSource,
        rule: NoiseRule,
        height: int,
        width: int,
        device: torch.device,
    ) -> None:
        self.spec, self.codec, self.noise = spec, codec, noise
        self.controller = NoiseController(rule, height, width, device)
        self.encoder = codec.encoder_state(1, height, width)
        self.decoder = codec.decoder_state(1, height, width)
        self.run: Runner = run_directly

    def reset(self) -> None:
        """Forget the frames before."""
        for part in (self.controller, self.encoder, self.decoder):
            part.reset()

    def encode(self, video_3THW: Tensor, steps: Steps, motion: float, *, begun: bool) -> tuple[Tensor, Tensor]:
        """As `Stream.encode`; the first frames of a stream (not `begun`) have no motion yet."""
        mean_1CFhw = self.mean(video_3THW)
        if begun:
            share, first = self.controller.update(video_3THW, steps, motion)
        else:
            share, first = self.controller.begin(video_3THW, steps)
        noise_1CFhw = self.noise.draw(0, 1, mean_1CFhw.shape[2])
        return mix(mean_1CFhw.float(), noise_1CFhw, share.float()), first

    def mean(self, video_3THW: Tensor) -> Tensor:
        """Pixels in [-1, 1] as latents [1, C, F, h, w], without noise."""
        key = WorkKey("encode", video_3THW.shape[1], steady=bool(self.encoder.started))
        return self.run(key, lambda video: self.codec.encode(video, self.encoder), video_3THW[None])

    def decode(self, clean_1CFhw: Tensor) -> Tensor:
        """As `Stream.decode`."""
        frames = clean_1CFhw.shape[2]
        key = WorkKey("decode", frames, steady=bool(self.decoder.started) and frames == self.spec.frames_per_block)
        return self.run(key, lambda clean: self.codec.decode(clean, self.decoder), clean_1CFhw)[0]
