"""Joint training of the network, the word table and the decoder, on the task that they have in the stream.

A step is a small version of the stream. One or two successive groups of frames are encoded and mixed with noise as in
the stream (the share of noise is the strength, a little less with motion, and the timestep is that share). The earlier
group is denoised first and leaves its keys and values; the later one must match its style target. If a second denoising
step is trained, the network's own clean latents are mixed with noise at one of the later timesteps and must match the
same target. The earlier group sometimes has another prompt or another scene, so that the network learns not to keep the
past after a change.

The loss compares the decoded pixels and their differences with the style target, and the picture channels of the
latents with those of the content, so that the network removes the noise there. The meaning of the look channels is
learned.

Shape letters: B batch, C channels, T pixel frames, H W pixels, h w latent size, L tokens, J heads, K width of a head,
X tokens of a text, E width of a text embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.models.ember.codec import GROUP, STRIDE, EmberCodec
from engine.models.ember.training.autoencode import PICTURE_GAIN
from engine.models.ember.training.footage.data import Batch, Lessons
from engine.models.ember.training.losses import pixel_loss
from engine.models.ember.word_table import WordTable
from engine.models.spec import Schedule
from engine.network.dit import CausalDiT, DiTContext
from engine.network.protocol import forward
from engine.network.rope import rope_for
from engine.stream.timesteps import mix

LATENT_WEIGHT = 3.0
"""Weight of the latents' loss; that of the pixels is 1."""

SEAMS = 4.0
"""Additional weight of pixel differences across the borders of latents, where blocks would be visible."""


def style_share(strength: Tensor) -> Tensor:
    """Share of the style in the target at a strength: 0 up to 0.1, 1 from 0.55 on, linear in between.

    Higher strengths only add noise, which lets the result deviate further from the input.
    """
    return ((strength - 0.1) / 0.45).clamp(0, 1)


@dataclass(slots=True)
class Past:
    """Keys and values of earlier groups, by layer, in place of the stream's KV cache. Without gradients."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    def append(self, layer: int, k_BLJK: Tensor, v_BLJK: Tensor) -> tuple[Tensor, Tensor, None]:
        """Store the new keys and values and return all; implements `engine.network.protocol.Memory`."""
        if layer in self.keys:
            k_BLJK = torch.cat((self.keys[layer], k_BLJK), 1)
            v_BLJK = torch.cat((self.values[layer], v_BLJK), 1)
        self.keys[layer], self.values[layer] = k_BLJK.detach(), v_BLJK.detach()
        return k_BLJK, v_BLJK, None


class DenoiseTask:
    """The training task described in the module's docstring; implements `engine.models.ember.training.loop.Task`.

    Args:
        dit, words, codec: the trained modules; the codec's encoder is not trained.
        schedule: the model's denoising steps.
        lessons: the training examples.
        rate: peak learning rate of the decoder; see `groups`.
    """

    def __init__(
        self,
        dit: CausalDiT,
        words: WordTable,
        codec: EmberCodec,
        schedule: Schedule,
        lessons: Lessons,
        *,
        rate: float = 2e-3,
    ) -> None:
        self.dit, self.words, self.codec, self.schedule = dit, words, codec, schedule
        self.lessons, self.rate = lessons, rate
        self.modules: dict[str, nn.Module] = {"dit": dit, "words": words, "codec": codec}
        codec.encoder.requires_grad_(False)

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The decoder at the full rate; network and words, which start close to a solution, at a fifth of it."""
        return [
            (list(self.codec.decoder.parameters()), self.rate),
            ([*self.dit.parameters(), *self.words.parameters()], self.rate / 5),
        ]

    def loss(self, number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """One step; see `engine.models.ember.training.loop.Task`."""
        lesson = self.lessons.at(number)
        device = self.words.rows_NE.device
        batch = lesson.batch
        content_BT3HW, styled_BT3HW = batch.content_BT3HW.to(device), batch.styled_BT3HW.to(device)
        count = len(content_BT3HW)

        def uniform() -> Tensor:
            return torch.rand(count, generator=generator).to(device)

        strength = uniform()
        strength = torch.where(uniform() < 0.6, 0.35 + 0.4 * strength, 0.02 + 0.98 * strength)
        share = style_share(strength).view(-1, 1, 1, 1, 1)
        target_BT3HW = content_BT3HW + (styled_BT3HW - content_BT3HW) * share
        with torch.no_grad():
            content = self._encode(content_BT3HW)
        text = self._text(batch)
        # one noise per step, as the stream draws it
        noise = torch.randn((2, *content[0].shape), generator=generator).to(device)
        start = int(torch.randint(0, 40, (), generator=generator))

        pasts = [Past() for _ in range(lesson.steps)]
        before: Tensor | None = None
        if lesson.groups > 1:
            other_prompt, other_scene = torch.rand(2, generator=generator) < torch.tensor([0.25, 0.12])
            old_text = text.detach().roll(int(other_prompt), 0)
            old = content[0].roll(int(other_scene), 0)
            with torch.no_grad():
                before = self._denoise(old, strength, old_text, noise, start, pasts, uniform, generator)
        made = self._denoise(content[-1], strength, text, noise, start + lesson.groups - 1, pasts, uniform, generator)

        picture = self.codec.picture
        latent_loss = functional.huber_loss(
            made[:, :picture] / PICTURE_GAIN, content[-1][:, :picture] / PICTURE_GAIN, delta=0.5
        )
        earlier = (made if before is None else before).detach()
        pixels = self.codec.decode_group(made, earlier)
        wanted = rearrange(target_BT3HW[:, -GROUP:], "b t c h w -> b (t c) h w")
        pixel = pixel_loss(pixels, wanted, border=STRIDE, extra=SEAMS)
        figures = {"latent": latent_loss.item(), "pixel": pixel.item()}
        if lesson.steps > 1:
            figures["pixel2"] = pixel.item()
        return LATENT_WEIGHT * latent_loss + pixel, figures

    def _encode(self, video_BT3HW: Tensor) -> list[Tensor]:
        """Latents of each group of frames; the first frame only serves as the one before the first group."""
        latents = []
        for first in range(1, video_BT3HW.shape[1], GROUP):
            group = rearrange(video_BT3HW[:, first : first + GROUP], "b t c h w -> b (t c) h w")
            latents.append(self.codec.encode_group(group, video_BT3HW[:, first - 1]))
        return latents

    def _text(self, batch: Batch) -> Tensor:
        """Embeddings [B, X, E] of the prompts."""
        return torch.stack([self.words(prompt) for prompt in batch.prompts])

    def _denoise(
        self,
        clean: Tensor,
        strength: Tensor,
        text_BXE: Tensor,
        noise: Tensor,
        position: int,
        pasts: list[Past],
        uniform: Callable[[], Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """All denoising steps of one group; only the last one has gradients. Returns clean latents [B, C, h, w]."""
        motion = uniform() * (uniform() < 0.5)
        t = (1000 * strength * (1 - 0.1 * motion)).round()
        x = mix(clean, noise[0], (t / 1000).view(-1, 1, 1, 1))
        for step, past in enumerate(pasts):
            last = step == len(pasts) - 1
            with torch.set_grad_enabled(last and torch.is_grad_enabled()):
                made = self._forward(x, t, text_BXE, position, past).float()
            if not last:
                levels = torch.tensor(self.schedule.steps[1:])
                chosen = levels[torch.randint(0, len(levels), (len(clean),), generator=generator)]
                t = (chosen.to(strength) * strength).round()
                x = mix(made.detach(), noise[step + 1], (t / 1000).view(-1, 1, 1, 1))
        return made

    def _forward(self, x_BChw: Tensor, t_B: Tensor, text_BXE: Tensor, position: int, past: Past) -> Tensor:
        dit = self.dit
        patch = dit.shape.patch
        rope = rope_for(dit.shape, x_BChw.shape[2] // patch[1], x_BChw.shape[3] // patch[2], x_BChw.device)
        frames = torch.full((len(x_BChw), 1), position, device=x_BChw.device)
        keys = dit.text_keys(dit.embed_text(text_BXE))
        # With few tokens, the backward pass of this kernel is several times as fast as that of the flash kernel.
        with sdpa_kernel(SDPBackend.MATH):
            context = DiTContext(dit.time(t_B[:, None]), rope.at(frames))
            return forward(dit, x_BChw[:, :, None], context, keys, past)[:, :, 0]
