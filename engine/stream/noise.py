"""Motion-aware noise: the faster the picture moves, the less noise is mixed into it.

The same controller serves the released form and the paper's (arXiv 2511.07399, section on motion-aware noise);
a `NoiseRule` says which. It works on the device and reads nothing back. It must not know networks or streams.

Shape letters: T pixel frames, H W pixels, Q frames of the sliding window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.network.protocol import TIMESTEPS
from engine.stream.timesteps import Steps


@dataclass(frozen=True, slots=True)
class NoiseRule:
    """How motion is measured and what it does.

    Attributes:
        window: pixel frames over which the largest motion counts; 0 for the frames of the chunk itself.
        full_motion: root mean square difference of two frames (pixels in [-1, 1]) that counts as full motion.
        inertia: weight of the new value against the previous one (lambda in the paper).
        moves_first_step: whether the first timestep follows the noise.
    """

    window: int = 0
    full_motion: float = 0.2
    inertia: float = 0.9
    moves_first_step: bool = True


RELEASED = NoiseRule()
"""As the release computes it."""

PAPER = NoiseRule(window=8, moves_first_step=False)
"""As the paper writes it: a sliding window, and the step list stays."""

RULES = {"released": RELEASED, "paper": PAPER}


class NoiseController:
    """The controller and its memory: three tensors at fixed addresses."""

    def __init__(self, rule: NoiseRule, height: int, width: int, device: torch.device | str) -> None:
        self.rule = rule
        self.previous = torch.zeros((), dtype=torch.float64, device=device)
        self.last_frame = torch.zeros(3, height, width, device=device)
        self.recent_Q = torch.zeros(rule.window, device=device)

    def reset(self) -> None:
        """Forget everything."""
        for tensor in self.tensors().values():
            tensor.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a chunk."""
        return {"previous": self.previous, "last_frame": self.last_frame, "recent": self.recent_Q}

    def begin(self, video_3THW: Tensor, steps: Steps) -> tuple[Tensor, Tensor]:
        """The stream's first frames: full noise, and the first timestep of the list.

        Returns:
            As `update`.
        """
        self.previous.fill_(steps.noise)
        self.last_frame.copy_(video_3THW[:, -1])
        return self.previous, torch.full((), steps.timesteps[0], dtype=torch.int64, device=self.previous.device)

    def update(self, video_3THW: Tensor, steps: Steps, amount: float = 1.0) -> tuple[Tensor, Tensor]:
        """The next frames, pixels in [-1, 1].

        m = clip(max RMS(f_t - f_(t-1)) / full_motion, 0, 1); s = l (s_max - (s_max - s_min) m) + (1 - l) s'.
        In fp64 and in this order: a still scene makes 1000 s a whole number, which must not be truncated.

        Args:
            video_3THW: the chunk's frames.
            steps: what the strength wants.
            amount: how much of the motion counts, 0 to 1.

        Returns:
            The share of noise to mix in (fp64 scalar; valid until the next call) and the first timestep (int64
            scalar), both on the device.
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
        if not rule.moves_first_step:
            return self.previous, torch.full_like(self.previous, steps.timesteps[0], dtype=torch.int64)
        first = (self.previous * TIMESTEPS).long() - steps.drop
        return self.previous, first.clamp(1, TIMESTEPS)


class Gaussian:
    """A seeded source of Gaussian noise for one size of latents.

    Args:
        shape: C, h, w of a latent frame.
        steps: most denoising steps.
        fixed: draw once per seed and step, the same for every frame (no flicker in still scenes), not anew each time.
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
        """Change the seed; the same one again changes nothing."""
        if seed != self.seed:
            self.seed = seed
            self.reset()

    def reset(self) -> None:
        """Start again from the seed."""
        self._generator.manual_seed(self.seed)
        self._drawn_NCFhw.normal_(generator=self._generator)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a call; the generator's state is a copy, which `resume` takes back."""
        return {"drawn": self._drawn_NCFhw, "generator": self._generator.get_state()}

    def resume(self, seed: int, generator: Tensor) -> None:
        """Go on with this seed from this state of the generator."""
        self.seed = seed
        self._generator.set_state(generator)

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """Noise [count, C, frames, h, w] to arrive at steps `step`, `step` + 1, ... (0 is the encoded picture)."""
        channels, height, width = self._shape
        if self._fixed:
            return self._drawn_NCFhw[step : step + count].expand(count, channels, frames, height, width)
        return torch.randn(
            (count, channels, frames, height, width), generator=self._generator, device=self._generator.device
        )
