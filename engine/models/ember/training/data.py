"""Training examples: crops of procedural clips, prompts, and what each prompt should make of a crop.

Batch `n` depends on the pool, the seed and `n` alone; there is no reader whose position would have to be saved.
Knows operators and words, but neither codec nor network.

Shape letters: B batch, T pixel frames, H W pixels.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.models.ember.training.styles import STYLES, Stage, apply

TINTS = [word for word, style in STYLES.items() if style.stage is Stage.TINT]
FULL = [word for word in STYLES if word not in TINTS]
_WEIGHTS = [STYLES[word].weight for word in FULL]

STILL_SHARE = 0.5
"""Share of crops that are made to stand still: flicker shows there first, and they are styled in one go."""

Prompt = list[str]


def random_prompt(rng: random.Random) -> Prompt:
    """Nothing, a colour, a style, a style in a colour, two styles, or two styles in a colour; in any order."""
    kind = rng.random()
    if kind < 0.03:
        return []
    if kind < 0.11:
        return [rng.choice(TINTS)]
    words = rng.choices(FULL, _WEIGHTS)
    if kind >= 0.9:
        second = rng.choices(FULL, _WEIGHTS)
        words += [word for word in second if word not in words]
    if 0.75 <= kind < 0.9 or kind >= 0.97:
        words.append(rng.choice(TINTS))
    rng.shuffle(words)
    return words


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pixels in [-1, 1]: `content_BT3HW` and what `prompts` make of it at full strength, `styled_BT3HW`."""

    content_BT3HW: Tensor
    styled_BT3HW: Tensor
    prompts: list[Prompt]


def crop(clips: np.ndarray, rng: random.Random, frames: int, size: int) -> Tensor:
    """A random crop of a random clip, mirrored, turned over and with its colour planes exchanged at random.

    Returns:
        Pixels in 0..1, [frames, 3, size, size].
    """
    clip = clips[rng.randrange(len(clips))]
    first = rng.randrange(clip.shape[0] - frames + 1)
    top, left = (rng.randint(0, clip.shape[1] - size) for _ in range(2))
    cut = np.ascontiguousarray(clip[first : first + frames, top : top + size, left : left + size])
    x = torch.from_numpy(cut.astype(np.float32) / 255).permute(0, 3, 1, 2)
    if rng.random() < 0.5:
        x = x.flip(0)
    if rng.random() < 0.5:
        x = x.flip(-1)
    if rng.random() < 0.2:
        x = x.transpose(-1, -2)
    if rng.random() < 0.5:
        x = x[:, rng.sample(range(3), 3)]
    if rng.random() < STILL_SHARE:
        x = x[:1].expand_as(x)
    return x


def draw(clips: np.ndarray, seed: int, number: int, *, batch: int, frames: int, size: int) -> Batch:
    """Batch `number` of the endless row of batches that `seed` stands for."""
    rng = random.Random(f"{seed}/{number}")
    contents, styleds, prompts = [], [], []
    for _ in range(batch):
        content = crop(clips, rng, frames, size)
        prompt = random_prompt(rng)
        contents.append(content)
        still = bool((content == content[:1]).all())
        styleds.append(apply(content[:1], prompt).expand_as(content) if still else apply(content, prompt))
        prompts.append(prompt)
    return Batch(torch.stack(contents) * 2 - 1, torch.stack(styleds) * 2 - 1, prompts)
