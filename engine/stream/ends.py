"""Both ends of a stream: encoding pixels to noisy latents before the network, decoding clean latents after it.

Encoding takes the mean of the video autoencoder (VAE), and mixes noise into it as in flow matching:
x = s noise + (1 - s) mean. The motion-aware noise controller sets the share of noise s (StreamDiffusionV2, arXiv
2511.07399). The autoencoder is causal in time: it keeps features of earlier frames as its state, one for encoding and
one for decoding.

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
    """A source of Gaussian noise."""

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """Noise [count, C, frames, h, w] for the inputs of denoising steps `step`, `step` + 1, ..., one each."""
        ...


class VideoEnds:
    """Encoder, noise and decoder of a stream, with their state.

    Args:
        spec: the model's row.
        codec: its video autoencoder.
        noise: source of noise.
        rule: how motion lowers the noise.
        height, width: size of the frames in pixels.
        device: device of pixels and latents.
        source: whether the network takes the input's latents beside the noisy ones.

    Attributes:
        controller: the motion-aware noise controller.
        encoder, decoder: state of the autoencoder.
        run: runs encode and decode, directly or as captured work.
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
        *,
        source: bool = False,
    ) -> None:
        self.spec, self.codec, self.noise, self.source = spec, codec, noise, source
        self.controller = NoiseController(rule, height, width, device)
        self.encoder = codec.encoder_state(1, height, width)
        self.decoder = codec.decoder_state(1, height, width)
        self.run: Runner = run_directly

    def reset(self) -> None:
        """Clear the state."""
        for part in (self.controller, self.encoder, self.decoder):
            part.reset()

    def encode(self, video_3THW: Tensor, steps: Steps, motion: float, *, begun: bool) -> tuple[Tensor, Tensor]:
        """As `Stream.encode`; `begun` is False for the first chunk of a stream, for which no motion is known."""
        mean_1CFhw = self.mean(video_3THW)
        if begun:
            share, first = self.controller.update(video_3THW, steps, motion)
        else:
            share, first = self.controller.begin(video_3THW, steps)
        noise_1CFhw = self.noise.draw(0, 1, mean_1CFhw.shape[2])
        noisy = mix(mean_1CFhw.float(), noise_1CFhw, share.float())
        return (torch.cat((noisy, mean_1CFhw.float()), dim=1) if self.source else noisy), first

    def mean(self, video_3THW: Tensor) -> Tensor:
        """Encode pixels in [-1, 1] to latents [1, C, F, h, w], without noise."""
        key = WorkKey("encode", video_3THW.shape[1], steady=bool(self.encoder.started))
        return self.run(key, lambda video: self.codec.encode(video, self.encoder), video_3THW[None])

    def decode(self, clean_1CFhw: Tensor) -> Tensor:
        """As `Stream.decode`."""
        frames = clean_1CFhw.shape[2]
        key = WorkKey("decode", frames, steady=bool(self.decoder.started) and frames == self.spec.frames_per_block)
        return self.run(key, lambda clean: self.codec.decode(clean, self.decoder), clean_1CFhw)[0]
