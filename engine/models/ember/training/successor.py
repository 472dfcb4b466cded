"""Second stage of the successor's training: the network learns to say what the decoder is to draw.

The decoder can draw every word already (`drawing`). The network first learns to give the looks of the draft, and to
remove noise from the components, both without decoding anything. From step `PIXELS_FROM` on, one of the four frames is
decoded and compared with its style target, and network, words and decoder are trained together.

A step is a small version of the stream, as in `denoise`: a group of four frames is mixed with noise and denoised, in a
share of the steps after an earlier group whose keys and values it sees, and in a share of them by a second denoising
step, which starts from the network's own result.

Shape letters: B batch, T pixel frames, C channels, H W pixels, h w latent size, X tokens of a text, E width of a text
embedding.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.models.ember.codec import GROUP
from engine.models.ember.frame_codec import COMPONENTS, LOOK_GAIN, FrameCodec
from engine.models.ember.training.denoise import Past
from engine.models.ember.training.drawing import NOISE, Draft, crop_of, random_prompt, style_share
from engine.models.ember.training.looks.table import apply
from engine.models.ember.training.losses import pixel_loss
from engine.models.ember.word_table import WordTable
from engine.models.spec import CacheShape, ModelSpec, Schedule
from engine.network.dit import CausalDiT, DiTContext
from engine.network.dit_shape import DiTShape, dit_shape
from engine.network.protocol import forward
from engine.network.rope import rope_for
from engine.stream.timesteps import linear_estimate, mix

LOOK = 32
"""Look channels."""

PIXELS_FROM = 3000
"""Step from which pixels are compared too."""

EARLIER_SHARE, SECOND_SHARE = 0.25, 0.4
"""Shares of the steps with an earlier group, and with a second denoising step."""

STILL_SHARE = 0.3
"""Share of clips that are made still: flicker is most visible there."""


def successor(signal: Tensor) -> ModelSpec:
    """The successor's row, for components with these standard deviations in a latent.

    It is not in the model table before its weights are better than the shipped ones.
    """
    components = tuple(float(value) for value in signal)
    return ModelSpec(
        name="ember-2",
        family="ember",
        title="Ember 2 (embedded, runs on any machine)",
        network=DiTShape(
            dim=256,
            heads=8,
            layers=3,
            ffn=1024,
            latent_channels=GROUP * COMPONENTS + LOOK,
            text_dim=64,
            text_len=8,
            freq_dim=128,
            rope_base=64.0,
        ),
        cache=CacheShape(slots=2, sinks=0, wrap_at=1000, rule="honest"),
        schedule=Schedule(
            steps=(900, 450, 300, 200),
            default_steps=1,
            shift=1.0,
            strength=1.0,
            noise=NOISE,
            drop=0,
            prediction="correction",
            signal=components * GROUP + (0.0,) * LOOK,
            fixed_noise=True,
        ),
        vae={"look": LOOK},
        normalised_latents=True,
        licence="the licence of this software",
    )


@torch.no_grad()
def begin(dit: CausalDiT, signal: tuple[float, ...], generator: torch.Generator) -> None:
    """Initialise the network: inputs get unit variance, and the correction of the components begins small."""
    dit.init_weights(generator)
    scale = torch.tensor([value or LOOK_GAIN for value in signal])
    dit.patch_embedding.weight.div_(scale.view(1, -1, 1, 1, 1))
    rows = dit.head.head.weight.view(-1, len(scale), dit.shape.dim)
    rows[:, : GROUP * COMPONENTS] *= 0.05
    rows[:, GROUP * COMPONENTS :] *= LOOK_GAIN


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Clips [B, T, 3, H, W] in [-1, 1] and their prompts."""

    video_BT3HW: Tensor
    prompts: list[list[str]]


def clips_of(films: np.ndarray, seed: int, number: int, *, groups: int, batch: int) -> Clips:
    """The clips of step `number`; they depend only on the films, the seed and the number."""
    rng = random.Random(f"{seed}/{number}/clips")
    height, width = rng.choice([(128, 128), (96, 160), (160, 96)])
    videos = []
    for _ in range(batch):
        film = films[rng.randrange(len(films))]
        first = rng.randrange(film.shape[0] - GROUP * groups + 1)
        video = crop_of(film[first : first + GROUP * groups], rng, height, width)
        video = video.flip(0) if rng.random() < 0.5 else video
        videos.append(video[:1].expand_as(video) if rng.random() < STILL_SHARE else video)
    return Clips(torch.stack(videos) * 2 - 1, [random_prompt(rng) for _ in range(batch)])


class SuccessorTask:
    """The second stage; implements `engine.models.ember.training.loop.Task`.

    Args:
        spec: the successor's row.
        dit, words, codec, draft: the modules. The encoder is not trained, the draft neither.
        films: pool of films.
        seed: seed of the clips.
        batch: clips of a step.
        rate: peak learning rate of the network.
    """

    def __init__(
        self,
        spec: ModelSpec,
        dit: CausalDiT,
        words: WordTable,
        codec: FrameCodec,
        draft: Draft,
        films: np.ndarray,
        seed: int,
        *,
        batch: int = 6,
        rate: float = 1e-3,
    ) -> None:
        self.spec, self.dit, self.words, self.codec, self.draft = spec, dit, words, codec, draft
        self.films, self.seed, self.batch, self.rate = films, seed, batch, rate
        draft.requires_grad_(False)
        self.modules: dict[str, nn.Module] = {"dit": dit, "words": words, "codec": codec}
        self.signal_C11 = torch.tensor(spec.schedule.signal)[:, None, None]

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Network and words at the full rate, the head, whose outputs are large, at four times, the decoder at half."""
        head = list(self.dit.head.parameters())
        others = [p for name, p in self.dit.named_parameters() if not name.startswith("head.")]
        return [
            ([*others, *self.words.parameters()], self.rate),
            (head, 4 * self.rate),
            (list(self.codec.decoder.parameters()), self.rate / 2),
        ]

    def loss(self, number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """One step; see `engine.models.ember.training.loop.Task`."""
        draws = torch.rand(2, generator=generator)
        groups, steps = 1 + int(draws[0] < EARLIER_SHARE), 1 + int(draws[1] < SECOND_SHARE)
        clips = clips_of(self.films, self.seed, number, groups=groups, batch=self.batch)
        strength = torch.rand(self.batch, generator=generator)
        strength = torch.where(
            torch.rand(self.batch, generator=generator) < 0.6, 0.35 + 0.4 * strength, 0.02 + 0.98 * strength
        )
        share = style_share(strength)
        look = torch.stack([self.draft(p, s) for p, s in zip(clips.prompts, share, strict=True)])
        look_BL11 = look[:, :, None, None]
        text = torch.stack([self.words(prompt) for prompt in clips.prompts])
        latents = self._encode(clips.video_BT3HW, groups)
        noise = torch.randn((2, *latents[0].shape[1:]), generator=generator)
        motion = torch.rand(self.batch, generator=generator) * (torch.rand(self.batch, generator=generator) < 0.5)
        sigma = self.spec.schedule.noise * strength * (1 - 0.1 * motion)
        pasts = [Past() for _ in range(steps)]
        start = int(torch.randint(0, 40, (), generator=generator))
        for group in range(groups):
            last = group == groups - 1
            with torch.set_grad_enabled(last and torch.is_grad_enabled()):
                firsts, made = self._denoise(latents[group], sigma, strength, text, noise, start + group, pasts)
        figures: dict[str, float] = {}
        total = torch.zeros(())
        for name, each in (("", firsts), ("2", made)) if steps > 1 else (("", made),):
            picture, drawn = each.split([self.codec.picture, LOOK], 1)
            error = (picture - latents[-1][:, : self.codec.picture]) / self.signal_C11[: self.codec.picture]
            clean, same = error.abs().mean(), functional.mse_loss(drawn / LOOK_GAIN, look_BL11.expand_as(drawn))
            total = total + clean + same
            figures |= {f"clean{name}": clean.item(), f"look{name}": same.item()}
        if number >= PIXELS_FROM:
            pixel = self._pixels(clips, made, share, int(torch.randint(0, GROUP, (), generator=generator)))
            total = 0.3 * total + 2 * pixel
            figures["pixel2" if steps > 1 else "pixel"] = pixel.item()
        return total, figures

    def _pixels(self, clips: Clips, made: Tensor, share: Tensor, frame: int) -> Tensor:
        """Loss of one decoded frame of the last group."""
        content = clips.video_BT3HW[:, frame - GROUP]
        with torch.no_grad():
            pairs = zip(content, clips.prompts, strict=True)
            styled = torch.cat([apply(picture[None] / 2 + 0.5, prompt) for picture, prompt in pairs]) * 2 - 1
        wanted = content + (styled - content) * share.view(-1, 1, 1, 1)
        picture, look = made.split([self.codec.picture, LOOK], 1)
        parts = picture[:, COMPONENTS * frame : COMPONENTS * (frame + 1)]
        return pixel_loss(self.codec.decode_frames(parts, look / LOOK_GAIN), wanted)

    @torch.no_grad()
    def _encode(self, video_BT3HW: Tensor, groups: int) -> list[Tensor]:
        """Latents [B, C, h, w] of each group of frames, with an empty look."""
        batch = len(video_BT3HW)
        frames = self.codec.encode_frames(video_BT3HW.flatten(0, 1))
        latents = frames.unflatten(0, (batch, groups, GROUP)).flatten(2, 3)
        empty = latents.new_zeros(batch, LOOK, *latents.shape[-2:])
        return [torch.cat((latents[:, group], empty), 1) for group in range(groups)]

    def _denoise(
        self,
        clean: Tensor,
        sigma: Tensor,
        strength: Tensor,
        text_BXE: Tensor,
        noise: Tensor,
        position: int,
        pasts: list[Past],
    ) -> tuple[Tensor, Tensor]:
        """Clean latents after the first and after the last denoising step. Each step learns by itself."""
        t = (1000 * sigma).round()
        first = made = self._step(mix(clean, noise[0], (t / 1000).view(-1, 1, 1, 1)), t, text_BXE, position, pasts[0])
        for past in pasts[1:]:
            t = (self.spec.schedule.steps[1] * strength).round()
            x = mix(made.detach(), noise[1], (t / 1000).view(-1, 1, 1, 1))
            made = self._step(x, t, text_BXE, position, past)
        return first, made

    def _step(self, x_BChw: Tensor, t_B: Tensor, text_BXE: Tensor, position: int, past: Past) -> Tensor:
        dit = self.dit
        patch = dit_shape(self.spec.network).patch
        rope = rope_for(dit.shape, x_BChw.shape[2] // patch[1], x_BChw.shape[3] // patch[2], x_BChw.device)
        frames = torch.full((len(x_BChw), 1), position, device=x_BChw.device)
        with sdpa_kernel(SDPBackend.MATH):
            context = DiTContext(dit.time(t_B[:, None]), rope.at(frames))
            keys = dit.text_keys(dit.embed_text(text_BXE))
            predicted = forward(dit, x_BChw[:, :, None], context, keys, past)[:, :, 0].float()
        return predicted + linear_estimate(x_BChw, (t_B / 1000).view(-1, 1, 1, 1), self.signal_C11)
