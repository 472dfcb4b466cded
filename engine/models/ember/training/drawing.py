"""First stage of the successor's training: the decoder learns to draw every word, without the network.

Instead of the network, a small table gives each prompt its look, the same over the whole picture: the *draft*. So a
step costs a tenth of one with the network, and nothing but the decoder can be the reason when a word is not drawn. The
network learns afterwards to give the looks of the draft, and then both are trained together (`denoise`).

Components are mixed with noise and freed of it again by their own best linear estimate, as in the stream.

Shape letters: B prompts of a step, N pictures of a prompt, C channels, H W pixels, h w latent size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.ember.frame_codec import FrameCodec, principal_components
from engine.models.ember.training.footage.data import grade
from engine.models.ember.training.footage.styles import Stage
from engine.models.ember.training.looks.table import LOOKS, apply
from engine.models.ember.training.losses import pixel_loss, psnr
from engine.models.vocabulary import Vocabulary
from engine.stream.timesteps import linear_estimate, mix

WEAKEST = 9.0
"""Standard deviation of the weakest component in a latent, against unit noise."""

NOISE = 0.9
"""Share of noise at a strength of 1."""

REPEATS = 4
"""How often a styled picture is used: to paint one costs as much as to learn from one."""

WINDOW = 64
"""Pictures from which those of a step are drawn."""

TINTS = [word for word, look in LOOKS.items() if look.stage is Stage.TINT]
FULL = [word for word in LOOKS if word not in TINTS]
_WEIGHTS = [LOOKS[word].weight for word in FULL]


def style_share(strength: Tensor) -> Tensor:
    """Share of the style in the target at a strength: 0 up to 0.05, 1 from 0.65 on, linear in between."""
    return ((strength - 0.05) / 0.6).clamp(0, 1)


def as_in_the_stream(codec: FrameCodec, clean_NChw: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
    """Components after noise has been mixed in at a strength (scalar) and removed by the linear estimate."""
    sigma = NOISE * strength
    return linear_estimate(mix(clean_NChw, noise, sigma), sigma, codec.scale[:, None, None])


def random_prompt(rng: random.Random) -> list[str]:
    """No word, a colour, a look, a look in a colour, or two looks; in random order."""
    kind = rng.random()
    if kind < 0.02:
        return []
    if kind < 0.1:
        return [rng.choice(TINTS)]
    words = rng.choices(FULL, _WEIGHTS)
    if kind >= 0.9:
        second = rng.choices(FULL, _WEIGHTS)
        words += [word for word in second if word not in words]
    elif kind >= 0.8:
        words.append(rng.choice(TINTS))
    rng.shuffle(words)
    return words


def crop_of(film: np.ndarray, rng: random.Random, height: int, width: int) -> Tensor:
    """A part of a film [T, H, W, 3], from nearer or further away, graded, mirrored and recoloured.

    Returns:
        Pixels in 0..1, [T, 3, height, width].
    """
    most = min(film.shape[1] / height, film.shape[2] / width)
    far = rng.uniform(1, most) if most > 1 and rng.random() < 0.4 else 1.0
    high, wide = int(height * far), int(width * far)
    top, left = rng.randint(0, film.shape[1] - high), rng.randint(0, film.shape[2] - wide)
    cut = np.ascontiguousarray(film[:, top : top + high, left : left + wide]).astype(np.float32) / 255
    x = torch.from_numpy(cut).permute(0, 3, 1, 2)
    if far > 1:
        x = functional.interpolate(x, (height, width), mode="area")
    if rng.random() < 0.3:
        x = grade(x, rng.uniform(0.2, 1.2), rng.uniform(0.8, 1.8))
    if rng.random() < 0.5:
        x = x.flip(-1)
    if rng.random() < 0.5:
        x = x[:, rng.sample(range(3), 3)]
    return x


def crop(films: np.ndarray, rng: random.Random, height: int, width: int) -> Tensor:
    """A part of a random frame, [3, height, width] in 0..1; see `crop_of`."""
    film = films[rng.randrange(len(films))]
    frame = rng.randrange(len(film))
    return crop_of(film[frame : frame + 1], rng, height, width)[0]


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A prompt, pictures [N, 3, H, W] in [-1, 1], and their style targets at full strength."""

    prompt: list[str]
    content_N3HW: Tensor
    styled_N3HW: Tensor


class Drawings:
    """An endless sequence of steps' drawings. Those of step `n` depend only on the films, the seed and `n`.

    Args:
        films: pool of films.
        seed: seed of the sequence.
        prompts: prompts of a step.
        pictures: pictures of each prompt.
    """

    def __init__(self, films: np.ndarray, seed: int, *, prompts: int = 12, pictures: int = 1) -> None:
        self.films, self.seed, self.prompts, self.pictures = films, seed, prompts, pictures
        self._drawn: dict[int, Drawing] = {}

    def at(self, number: int) -> Iterator[Drawing]:
        """The drawings of a step."""
        first = number * self.prompts // REPEATS
        for old in [index for index in self._drawn if index < first]:
            del self._drawn[old]
        for index in random.Random(f"{self.seed}/{number}/window").sample(range(first, first + WINDOW), self.prompts):
            if index not in self._drawn:
                self._drawn[index] = self.draw(index)
            yield self._drawn[index]

    def draw(self, index: int) -> Drawing:
        """Paint one drawing."""
        rng = random.Random(f"{self.seed}/{index}")
        prompt = random_prompt(rng)
        height, width = rng.choice([(96, 96), (128, 128), (96, 160), (160, 96), (144, 256)])
        content = torch.stack([crop(self.films, rng, height, width) for _ in range(self.pictures)])
        return Drawing(prompt, content * 2 - 1, apply(content, prompt) * 2 - 1)


class Draft(nn.Module):
    """Looks of prompts: rows of the words, added up, with the share of the style.

    Args:
        vocabulary: the words.
        look: look channels.
    """

    def __init__(self, vocabulary: Vocabulary, look: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.rows = nn.Parameter(torch.empty(len(vocabulary.words), 128))
        self.out = nn.Sequential(nn.Linear(130, 128), nn.SiLU(), nn.Linear(128, look))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Random rows, and looks of unit variance."""
        self.rows.normal_(generator=generator)
        for layer in (self.out[0], self.out[2]):
            layer.weight.normal_(std=1.6 * layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()

    def forward(self, words: list[str], share: Tensor) -> Tensor:
        """The look [look] of one prompt at a share of its style (scalar)."""
        rows = self.rows[[self.vocabulary.row(word) for word in words]].sum(0)
        out: Tensor = self.out(torch.cat((rows * share.sqrt(), torch.stack((share, 1 - share)))))
        return out


class DrawTask:
    """Trains decoder and draft; implements `engine.models.ember.training.loop.Task`.

    Args:
        codec: its decoder is trained.
        draft: looks of the prompts.
        drawings: the training examples.
        rate: peak learning rate.
    """

    def __init__(self, codec: FrameCodec, draft: Draft, drawings: Drawings, *, rate: float = 1.5e-3) -> None:
        self.codec, self.draft, self.drawings, self.rate = codec, draft, drawings, rate
        self.modules: dict[str, nn.Module] = {"codec": codec, "draft": draft}

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The sets of kernels, of which a word uses all at once, at a twentieth of the rate; see `LOG.md`."""
        sets, others = [], list(self.draft.parameters())
        for name, parameter in self.codec.decoder.named_parameters():
            (sets if name.endswith(("weights", "biases", "texture")) else others).append(parameter)
        return [(others, self.rate), (sets, self.rate / 20)]

    def start(self, films: np.ndarray) -> float:
        """Set the codec's components from the films; returns their signal-to-noise ratio in dB."""
        rng = random.Random(0)
        crops = torch.stack([crop(films, rng, 96, 96) for _ in range(600)])
        return principal_components(self.codec, crops * 2 - 1, WEAKEST)

    def loss(self, number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """One step; see `engine.models.ember.training.loop.Task`."""
        losses, plain = [], []
        for drawing in self.drawings.at(number):
            strength = torch.rand((), generator=generator)
            strength = 0.4 + 0.5 * strength if torch.rand((), generator=generator) < 0.75 else strength
            share = style_share(strength)
            content = drawing.content_N3HW
            wanted = content + (drawing.styled_N3HW - content) * share
            with torch.no_grad():
                clean = self.codec.encode_frames(content)
                noise = torch.randn(clean.shape, generator=generator)
                picture = as_in_the_stream(self.codec, clean, noise, strength)
            look = self.draft(drawing.prompt, share)[None, :, None, None]
            height, width = clean.shape[-2:]
            made = self.codec.decode_frames(picture, look.expand(1, -1, height, width))
            losses.append(pixel_loss(made, wanted))
            if not drawing.prompt:
                plain.append(psnr(made.detach(), content).item())
        loss = torch.stack(losses).mean()
        figures = {"pixel": loss.item()}
        if plain:
            figures["plain"] = float(np.mean(plain))
        return loss, figures
