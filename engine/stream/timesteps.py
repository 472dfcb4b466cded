"""Noise levels: the flow-matching sigmas, and the timesteps of a chunk's denoising steps at a strength.

A timestep t runs from 0 (clean) to 1000 (pure noise) and tells the network how noisy its input is. Its sigma is the
share of noise at t: x_t = (1 - sigma) x_0 + sigma noise (flow matching). With a timestep shift s, as in Wan2.1,
sigma = s g / (1 + (s - 1) g) with g evenly spaced.

Sigmas are looked up on the device in a table with one entry per whole timestep. So a timestep that was computed on the
device never has to be read by the host.

Networks of the Self-Forcing family were trained at timesteps with fractions, such as 937.5: their lists of steps are
positions in the scheduler's table (`Schedule.warp`). For them the tables have one entry per position instead, and what
is called a timestep here is a position. Only `network_timesteps` and `Sigmas` know the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.models.spec import Schedule
from engine.network.protocol import TIMESTEPS

MIN_STRENGTH = 0.05
"""Lower strengths give the timesteps of this one; below it, rounding could make two timesteps equal."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Noise levels of one chunk.

    Attributes:
        timesteps: one per denoising step, strictly decreasing.
        noise: share of noise mixed into the encoded input of a still scene, 0 to 1.
        depth: by how much full motion lowers that share.
        drop: how far the first timestep lies below 1000 times the share of noise that is mixed in.
        warp: shift of the table in which the timesteps are positions; 0 if they are timesteps.
        least: share of noise below which motion may not lower it, so that the first step stays above the second.
    """

    timesteps: tuple[int, ...]
    noise: float
    depth: float
    drop: int
    warp: float = 0.0
    least: float = 0.0


def steps_for(schedule: Schedule, strength: float, count: int, *, opening: bool = False) -> Steps:
    """The noise levels of `count` denoising steps at a strength from 0 to 1.

    Timesteps, noise, depth and drop are all proportional to the strength. At the schedule's own strength they are
    exactly the schedule's. With the rows of the model table, timesteps decrease at every setting, also in full motion,
    which lowers the first one: in the released list from 700 to 600, and the second one is 500.

    Args:
        schedule: the model's schedule.
        strength: setting of the strength control.
        count: number of denoising steps.
        opening: whether it is a stream's first chunk, which may have a list of its own (`Schedule.first_steps`).

    With `Schedule.warp`, strength moves the whole list towards 0 by the same number of positions, and steps that would
    fall to 0 are left out. So at the positions of the list itself what is left is its tail: the levels that the network
    was trained at. In between, all steps glide.

    Raises:
        ValueError: if `count` is not between 1 and the number of steps in the schedule.
    """
    if not 1 <= count <= len(schedule.steps):
        raise ValueError(f"{count} denoising steps were requested; the schedule has {len(schedule.steps)}")
    if schedule.warp:
        return _warped_steps(schedule, strength, count, opening)
    scale = max(strength, MIN_STRENGTH) / schedule.strength
    timesteps = tuple(min(round(t * scale), TIMESTEPS) for t in schedule.steps[:count])
    full = schedule.noise * schedule.strength
    noise = full * scale
    told = round((TIMESTEPS * full - schedule.drop) * scale)  # the first timestep of a still scene
    return Steps(timesteps, min(noise, 1.0), schedule.depth * scale, max(round(TIMESTEPS * noise) - told, 0))


def _warped_steps(schedule: Schedule, strength: float, count: int, opening: bool) -> Steps:
    """`steps_for` for a list of positions."""
    listed = schedule.first_steps if opening and schedule.first_steps else schedule.steps[:count]
    strength = 1.0 if schedule.from_noise else max(strength, MIN_STRENGTH) / schedule.strength
    moved = TIMESTEPS - min(round(TIMESTEPS * strength), TIMESTEPS)
    positions = tuple(position - moved for position in listed if position > moved)
    following = positions[1] + 1 if len(positions) > 1 else 1
    noise, shift = _sigma(positions[0], schedule.shift), schedule.shift
    depth = 0.0 if schedule.from_noise else schedule.depth * noise
    return Steps(positions, noise, depth, 0, shift, min(_sigma(following, shift), noise))


def _sigma(position: int, shift: float) -> float:
    u = position / TIMESTEPS
    return shift * u / (1 + (shift - 1) * u)


def network_timesteps(schedule: Schedule) -> Tensor:
    """The timestep that the network is given for each entry of the tables, 0 to 1000: [1001] on the CPU.

    Whole numbers (int64), or, with `Schedule.warp`, the scheduler's own fp32 table from its end to its start.
    """
    if not schedule.warp:
        return torch.arange(TIMESTEPS + 1)
    _, timestep_N = sigma_table(schedule.shift)
    return torch.cat((torch.zeros(1), timestep_N.flip(0)))


class Sigmas:
    """The sigmas of one schedule, as a table on one device.

    Attributes:
        prediction: what the network predicts, as `Schedule.prediction`.
        sigma_N, timestep_N: the schedule's table, from `sigma_table`.
        by_timestep: sigma of every entry of `network_timesteps`, fp32 on the device: that of the nearest entry of the
            schedule's table.
        signal_C111: standard deviations of the latent channels, for the prediction "correction".
    """

    def __init__(self, schedule: Schedule, device: torch.device | str) -> None:
        self.prediction = schedule.prediction
        self.sigma_N, self.timestep_N = sigma_table(schedule.shift)
        known = network_timesteps(schedule).float()
        nearest = (self.timestep_N[None] - known[:, None]).abs().argmin(dim=1)
        self.by_timestep = self.sigma_N[nearest].to(device)
        self.signal_C111 = torch.tensor(schedule.signal, device=device)[:, None, None, None]

    def at(self, t: Tensor) -> Tensor:
        """Sigmas (fp32) of whole timesteps (int64, any shape)."""
        return self.by_timestep[t]

    def clean(self, x: Tensor, predicted: Tensor, sigma: Tensor) -> Tensor:
        """Clean latents x_0 (fp32) [S, C, F, h, w] from a prediction of what `Schedule.prediction` says."""
        if self.prediction == "x0":
            return predicted.float()
        if self.prediction == "correction":
            return predicted.float() + linear_estimate(x.float(), sigma, self.signal_C111)
        return x.float() - sigma * predicted.float()


def sigma_table(shift: float, count: int = TIMESTEPS) -> tuple[Tensor, Tensor]:
    """Sigmas and timesteps, decreasing: sigma = shift g / (1 + (shift - 1) g) with g from 1 down to 1/count."""
    g = torch.linspace(1.0, 0.0, count + 1)[:-1]
    sigma = shift * g / (1 + (shift - 1) * g)
    return sigma, sigma * count


def mix(clean: Tensor, noise: Tensor, share: Tensor | float) -> Tensor:
    """Mix noise into clean latents: noise * share + clean * (1 - share)."""
    return noise * share + clean * (1 - share)


def linear_estimate(noisy: Tensor, sigma: Tensor, signal: Tensor) -> Tensor:
    """The best linear estimate of clean latents from their mixture with noise, each channel by itself.

    Args:
        noisy: (1 - sigma) clean + sigma noise.
        sigma: share of noise, broadcastable.
        signal: standard deviation of the clean channels, broadcastable. Where it is 0, so is the estimate.
    """
    power = signal.square()
    return noisy * ((1 - sigma) * power / ((1 - sigma).square() * power + sigma.square()).clamp_min(1e-12))
