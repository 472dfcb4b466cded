"""The noise that is mixed into latents: how much of it (the motion-aware noise controller), and where it comes from.

The faster the input moves, the less noise is mixed in, so that fast motion is kept (StreamDiffusionV2, arXiv
2511.07399, motion-aware noise controller). The paper and the released code differ in details; a `NoiseRule` selects
one of them. The controller computes on the device, and the host never reads its result.

`Gaussian` is the seeded source of noise.

Shape letters: C latent channels, F latent frames, h w latent size, T pixel frames, H W pixels, Q places in the queue of
recent motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.network.protocol import TIMESTEPS
from engine.stream.timesteps import Steps


@dataclass(frozen=True, slots=True)
class NoiseRule:
    """How motion is measured and how it changes the noise.

    Attributes:
        window: number of pixel frames of which the largest motion is taken; 0 takes the frames of the chunk.
        full_motion: root mean square difference between two frames (pixels in [-1, 1]) that counts as full motion.
        inertia: weight of the new value in the moving average (lambda in the paper).
        moves_first_step: whether the first timestep is lowered together with the noise.
    """

    window: int = 0
    full_motion: float = 0.2
    inertia: float = 0.9
    moves_first_step: bool = True


RELEASED = NoiseRule()
"""As in the released code."""

PAPER = NoiseRule(window=8, moves_first_step=False)
"""As in the paper: motion is taken over a sliding window, and the timesteps stay as they are."""

RULES = {"released": RELEASED, "paper": PAPER}


class NoiseController:
    """The motion-aware noise controller and its state: three tensors at fixed addresses.

    Attributes:
        previous: share of noise of the previous chunk, fp64 scalar.
        last_frame: the last pixel frame [3, H, W].
        recent_Q: motion of the last frames, for rules with a sliding window.
    """

    def __init__(self, rule: NoiseRule, height: int, width: int, device: torch.device | str) -> None:
        self.rule = rule
        self.previous = torch.zeros((), dtype=torch.float64, device=device)
        self.last_frame = torch.zeros(3, height, width, device=device)
        self.recent_Q = torch.zeros(rule.window, device=device)

    def reset(self) -> None:
        """Make it equal to a new controller."""
        for tensor in self.tensors().values():
            tensor.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """The state, by name."""
        return {"previous": self.previous, "last_frame": self.last_frame, "recent": self.recent_Q}

    def begin(self, video_3THW: Tensor, steps: Steps) -> tuple[Tensor, Tensor]:
        """The first chunk of a stream: no motion is known yet, so noise and first timestep are those of `steps`.

        Returns:
            As `update`.
        """
        self.previous.fill_(steps.noise)
        self.last_frame.copy_(video_3THW[:, -1])
        return self.previous, torch.full((), steps.timesteps[0], dtype=torch.int64, device=self.previous.device)

    def update(self, video_3THW: Tensor, steps: Steps, amount: float = 1.0) -> tuple[Tensor, Tensor]:
        """The next chunk.

        With f the frames, l the inertia and s' the previous share of noise:
        m = clip(max RMS(f_t - f_(t-1)) / full_motion, 0, 1); s = l (s_max - (s_max - s_min) m) + (1 - l) s'.
        It is computed in fp64 and in this order: in a still scene 1000 s is a whole number, and a rounding error
        would make the conversion to an integer one too low.

        Args:
            video_3THW: the chunk's frames, pixels in [-1, 1].
            steps: noise levels of the chunk.
            amount: how much motion lowers the noise, 0 to 1.

        Returns:
            The share of noise to mix in (fp64 scalar; overwritten by the next call) and the first timestep (int64
            scalar), both on the device. With `Steps.warp` that is the position whose sigma is nearest to the share.
        """
        rule = self.rule
        before = torch.cat((self.last_frame[:, None], video_3THW[:, :-1].float()), dim=1)
        moved_T = (video_3THW.float() - before).square().mean(dim=(0, 2, 3)).sqrt()
        self.last_frame.copy_(video_3THW[:, -1])
        if rule.window:
            self.recent_Q.copy_(torch.cat((self.recent_Q, moved_T))[-rule.window :])
            moved_T = self.recent_Q
        motion = (moved_T.max().double() / rule.full_motion).clamp(0.0, 1.0)
        target = steps.noise - (steps.depth * amount) * motion
        self.previous.copy_(target * rule.inertia + self.previous * round(1.0 - rule.inertia, 15))
        if steps.warp:
            self.previous.clamp_(min=steps.least)
        if not rule.moves_first_step:
            return self.previous, torch.full_like(self.previous, steps.timesteps[0], dtype=torch.int64)
        if steps.warp:
            position = self.previous / (steps.warp - (steps.warp - 1) * self.previous)
            return self.previous, (position * TIMESTEPS).round().long().clamp(1, TIMESTEPS)
        first = (self.previous * TIMESTEPS).long() - steps.drop
        return self.previous, first.clamp(1, TIMESTEPS)


class Gaussian:
    """A seeded source of Gaussian noise for latents of one size.

    Args:
        shape: C, h, w of a latent frame.
        steps: largest number of denoising steps.
        fixed: use the same noise for every frame, one tensor per denoising step, so that still scenes do not flicker;
            else draw new noise for every frame.
    """

    def __init__(
        self, shape: tuple[int, int, int], device: torch.device | str, *, steps: int, fixed: bool, seed: int = 0
    ) -> None:
        self._generator = torch.Generator(device)
        channels, height, width = shape
        self._shape, self._fixed, self.seed = shape, fixed, seed
        self._drawn_NCFhw = torch.empty(steps if fixed else 0, channels, 1, height, width, device=device)
        self.reset()

    def set_seed(self, seed: int) -> None:
        """Start from another seed; does nothing if it is the current one."""
        if seed != self.seed:
            self.seed = seed
            self.reset()

    def reset(self) -> None:
        """Start again from the current seed."""
        self._generator.manual_seed(self.seed)
        self._drawn_NCFhw.normal_(generator=self._generator)

    def tensors(self) -> dict[str, Tensor]:
        """The state, by name. The state of the random generator is a copy; `resume` sets it."""
        return {"drawn": self._drawn_NCFhw, "generator": self._generator.get_state()}

    def resume(self, seed: int, generator: Tensor) -> None:
        """Continue with a seed and a saved state of the random generator."""
        self.seed = seed
        self._generator.set_state(generator)

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """As `NoiseSource.draw`: noise [count, C, frames, h, w]."""
        channels, height, width = self._shape
        if self._fixed:
            return self._drawn_NCFhw[step : step + count].expand(count, channels, frames, height, width)
        return torch.randn(
            (count, channels, frames, height, width), generator=self._generator, device=self._generator.device
        )
