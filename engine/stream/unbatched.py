"""All denoising steps of one chunk, one after the other: without the stream batch, and for a stream's first chunk.

Shape letters: C latent channels, F latent frames, h w latent size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.stream.ends import NoiseSource
from engine.stream.timesteps import Sigmas, mix


def all_steps(
    forward: Callable[[Tensor, Tensor, bool], Tensor],
    x_1CFhw: Tensor,
    first: Tensor,
    timesteps: tuple[int, ...],
    sigmas: Sigmas,
    noise: NoiseSource,
) -> Tensor:
    """Run all denoising steps of one chunk, one after the other: clean latents [1, C, F, h, w].

    Args:
        forward: (noisy latents, timestep [1], whether this is not the chunk's first step) to clean latents.
        x_1CFhw: noisy latents.
        first: replaces `timesteps[0]`; int64 scalar on the device.
        timesteps: one per denoising step, decreasing.
        sigmas: the sigma of every timestep.
        noise: source of the noise between steps.
    """
    clean = x_1CFhw
    for step, t in enumerate(timesteps):
        t_S = first[None] if step == 0 else torch.full((1,), t, dtype=torch.int64, device=x_1CFhw.device)
        clean = forward(x_1CFhw, t_S, step > 0)
        if step + 1 < len(timesteps):
            sigma = sigmas.by_timestep[timesteps[step + 1]]
            x_1CFhw = mix(clean, noise.draw(step + 1, 1, x_1CFhw.shape[2]), sigma)
    return clean
