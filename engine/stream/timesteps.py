"""Noise levels: the flow-matching sigma table, and the list of denoising steps that the strength selects.

A timestep is a number from 0 to 1000, a sigma the share of noise at it. Levels are looked up in a table with one
entry per whole timestep, on the device, so a level that was computed there never has to be read by the host.
Knows nothing of networks or streams.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.models.spec import Schedule
from engine.network.protocol import TIMESTEPS

MIN_STRENGTH = 0.05
"""Below this strength the levels stay where they are, so that the whole-numbered list keeps decreasing."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The noise of one chunk, as the strength wants it.

    Attributes:
        timesteps: one per denoising step, strictly decreasing.
        noise: share of noise mixed into the encoded picture of a still scene.
        depth: how far full motion lowers that share.
        drop: how far below the mixed noise the network is told to be, in timesteps.
    """

    timesteps: tuple[int, ...]
    noise: float
    depth: float
    drop: int


def steps_for(schedule: Schedule, strength: float, count: int, depth: float = 0.1) -> Steps:
    """The list of `count` steps at a strength from 0 to 1.

    Everything moves in proportion to the strength: at the schedule's own it is exactly the schedule's list. With
    motion the first timestep falls by at most `depth` of its own scale, to six sevenths of its place in the
    released list, which stays above the second (five sevenths): the list decreases at every setting.

    Raises:
        ValueError: if `count` is not within the schedule's list.
    """
    if not 1 <= count <= len(schedule.steps):
        raise ValueError(f"{count} denoising steps asked of a list of {len(schedule.steps)}")
    scale = max(strength, MIN_STRENGTH) / schedule.strength
    timesteps = tuple(min(round(t * scale), TIMESTEPS) for t in schedule.steps[:count])
    noise = schedule.strength * scale
    drop = max(round(TIMESTEPS * noise) - timesteps[0], 0)
    return Steps(timesteps, min(noise, 1.0), depth * scale, drop)


class Sigmas:
    """The table of sigmas of one schedule on one device."""

    def __init__(self, schedule: Schedule, device: torch.device | str) -> None:
        self.prediction = schedule.prediction
        self.sigma_N, self.timestep_N = sigma_table(schedule.shift)
        whole = torch.arange(TIMESTEPS + 1, dtype=torch.float32)
        nearest = (self.timestep_N[None] - whole[:, None]).abs().argmin(dim=1)
        self.by_timestep = self.sigma_N[nearest].to(device)

    def at(self, t: Tensor) -> Tensor:
        """Sigma of whole timesteps (int64, any shape): fp32 of that shape."""
        return self.by_timestep[t]

    def clean(self, x: Tensor, predicted: Tensor, sigma: Tensor) -> Tensor:
        """The clean latent that a prediction stands for: x0 = x - sigma flow, fp32."""
        if self.prediction == "x0":
            return predicted.float()
        return x.float() - sigma * predicted.float()


def sigma_table(shift: float, count: int = TIMESTEPS) -> tuple[Tensor, Tensor]:
    """Sigmas and timesteps, decreasing: sigma = shift g / (1 + (shift - 1) g) with g from 1 down to 1/count."""
    g = torch.linspace(1.0, 0.0, count + 1)[:-1]
    sigma = shift * g / (1 + (shift - 1) * g)
    return sigma, sigma * count


def mix(clean: Tensor, noise: Tensor, share: Tensor | float) -> Tensor:
    """noise * share + clean * (1 - share): a picture with noise, or a clean latent taken to the next level."""
    return noise * share + clean * (1 - share)
