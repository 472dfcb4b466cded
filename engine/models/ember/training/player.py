"""Runs clips through the engine's own stream, for evaluation: pixels in, restyled pixels out.

Shape letters: T pixel frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engine.models.ember.codec import EmberCodec
from engine.models.ember.frame_codec import FrameCodec
from engine.models.ember.specs import EMBER
from engine.models.ember.word_table import WordTable
from engine.models.spec import CacheShape, ModelSpec
from engine.network.dit import CausalDiT
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED, Gaussian
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for


class Player:
    """Restyles clips with Ember.

    Args:
        dit, words, codec: the model's parts, in evaluation mode.
        cached: whether a chunk attends to earlier chunks.
        spec: the model's row.
    """

    def __init__(
        self,
        dit: CausalDiT,
        words: WordTable,
        codec: EmberCodec | FrameCodec,
        *,
        cached: bool = True,
        spec: ModelSpec = EMBER,
    ) -> None:
        self.dit, self.words, self.codec = dit, words, codec
        self.spec = spec
        if not cached:
            self.spec = replace(spec, cache=CacheShape(slots=1, sinks=0, rule="honest"), first_latents=1)
        self._stream: LocalStream | None = None
        self._noise: Gaussian | None = None

    def play(self, video_T3HW: Tensor, prompt: str, strength: float, steps: int, seed: int = 0) -> Tensor:
        """Restyle a whole clip.

        Args:
            video_T3HW: pixels in 0..1; 1 + 4n frames, H and W multiples of 16.
            prompt, strength, steps, seed: as the live controls.

        Returns:
            Pixels in 0..1, with the same shape.
        """
        height, width = video_T3HW.shape[-2:]
        stream, noise = self._open(height, width)
        stream.reset()
        noise.set_seed(seed)
        stream.set_prompt(self.words.encode(prompt).embedding)
        plan = steps_for(self.spec.schedule, strength, steps)
        frames = video_T3HW.transpose(0, 1) * 2 - 1
        made = []
        while frames.shape[1]:
            count = self.spec.frames_per_latent if stream.begun else self.spec.first_frames
            noisy, first = stream.encode(frames[:, :count], plan)
            frames = frames[:, count:]
            made += [stream.decode(clean) for _, clean in stream.denoise(noisy, first, plan.timesteps, ticket=True)]
        while stream.state.flights:  # repeat the last frame until the chunks in flight are finished
            rest = video_T3HW[-1:].expand(self.spec.frames_per_latent, -1, -1, -1).transpose(0, 1) * 2 - 1
            noisy, first = stream.encode(rest, plan)
            finished = stream.denoise(noisy, first, plan.timesteps, ticket=None)
            made += [stream.decode(clean) for _, clean in finished]
            if sum(part.shape[1] for part in made) >= len(video_T3HW):
                break
        return ((torch.cat(made, dim=1).transpose(0, 1) + 1) / 2).clamp(0, 1)[: len(video_T3HW)]

    def _open(self, height: int, width: int) -> tuple[LocalStream, Gaussian]:
        size = (height // self.spec.stride, width // self.spec.stride)
        if self._stream is None or self._noise is None or self._stream.state.x_SCFhw.shape[-2:] != size:
            most = len(self.spec.schedule.steps)
            self._noise = Gaussian((self.codec.latent_channels, *size), "cpu", steps=most, fixed=True)
            self._stream = LocalStream(
                self.spec,
                self.dit,
                self.codec,
                height=height,
                width=width,
                noise=self._noise,
                rule=Rule(self.spec.cache.rule),
                noise_rule=RELEASED,
                batch=True,
                max_steps=most,
            )
        return self._stream, self._noise
