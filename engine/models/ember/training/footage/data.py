"""Training examples: crops of procedural clips, prompts, and what each prompt should make of a crop.

Batch `n` depends on the pools, the seed and `n` alone; there is no reader whose position would have to be saved, and
another process may paint ahead (`Ahead`). Knows operators and words, no network, and of the codec only how many
frames make a group.

Shape letters: B batch, T pixel frames, H W pixels.
"""

from __future__ import annotations

import multiprocessing
import random
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.models.ember.codec import GROUP
from engine.models.ember.training.footage.marks import luma, saturate
from engine.models.ember.training.footage.styles import STYLES, Stage, apply
from engine.models.ember.training.pool import LARGE, TRAINING

TINTS = [word for word, style in STYLES.items() if style.stage is Stage.TINT]
FULL = [word for word in STYLES if word not in TINTS]
_WEIGHTS = [STYLES[word].weight for word in FULL]

STILL_SHARE = 0.5
"""Share of crops that are made to stand still: flicker shows there first, and they are styled in one go."""

FAR_SHARE = 0.6
"""Share of crops that are taken from further away."""

GRADED_SHARE = 0.6
"""Share of crops whose colour and contrast are changed."""

MEMORY_FROM = 1100
"""Step at which the network begins to see earlier groups."""

ROLLOUTS_FROM = 1100
"""Step at which it begins to see its own results."""

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
    """A random crop of a random clip: often taken from further away and graded, then mirrored, turned over, recoloured.

    Painted scenes are softer and more colourful than what cameras see. From further away (made smaller) edges are
    as sharp as in a photograph, and grading lends its contrast and its greys.

    Returns:
        Pixels in 0..1, [frames, 3, size, size].
    """
    clip = clips[rng.randrange(len(clips))]
    first = rng.randrange(clip.shape[0] - frames + 1)
    wide = min(clip.shape[1], round(size * rng.uniform(1.2, 2.5))) if rng.random() < FAR_SHARE else size
    top, left = (rng.randint(0, clip.shape[1] - wide) for _ in range(2))
    cut = np.ascontiguousarray(clip[first : first + frames, top : top + wide, left : left + wide])
    x = torch.from_numpy(cut.astype(np.float32) / 255).permute(0, 3, 1, 2)
    if wide > size:
        x = functional.interpolate(x, (size, size), mode="area")
    if rng.random() < GRADED_SHARE:
        x = grade(x, rng.uniform(0.1, 1.0), rng.uniform(1.0, 2.5))
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


def grade(x_T3HW: Tensor, saturation: float, contrast: float) -> Tensor:
    """Draw colours towards grey (`saturation` 1: not at all) and stretch around the mean brightness."""
    mean = luma(x_T3HW).mean()
    return ((saturate(x_T3HW, saturation) - mean) * contrast + mean).clamp(0, 1)


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


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What one step trains: a batch, how many groups of frames follow each other, and denoising steps per group."""

    batch: Batch
    groups: int
    steps: int


class Lessons(Protocol):
    """An endless row of lessons."""

    def at(self, number: int) -> Lesson:
        """The lesson of step `number`."""
        ...


class Painter:
    """Paints lessons when they are asked for.

    Args:
        clips, large: the pools of small and of large clips.
        seed: of the row.
        batch: crops of 64 x 64 pixels in a lesson; larger crops come with fewer.
    """

    def __init__(self, clips: np.ndarray, large: np.ndarray, seed: int, *, batch: int = 20) -> None:
        self.clips, self.large, self.seed, self.batch = clips, large, seed, batch

    def at(self, number: int) -> Lesson:
        """See `Lessons`."""
        rng = random.Random(f"{self.seed}/{number}/lesson")
        size, count, clips = 64, self.batch, self.clips
        kind = rng.random()
        if kind < 0.03:
            size, count, clips = 192, max(1, self.batch // 6), self.large
        elif kind < 0.15:
            size, count = 128, max(1, self.batch // 3)
        groups = 2 if rng.random() < 0.2 and number >= MEMORY_FROM else 1
        steps = 2 if rng.random() < 0.5 and number >= ROLLOUTS_FROM else 1
        batch = draw(clips, self.seed, number, batch=count, frames=GROUP * groups + 1, size=size)
        return Lesson(batch, groups, steps)


_painter: Painter | None = None


def _open(folder: Path, seed: int, batch: int) -> None:
    global _painter
    torch.set_num_threads(1)
    _painter = Painter(TRAINING.make(folder), LARGE.make(folder), seed, batch=batch)


def _paint(number: int) -> Lesson:
    assert _painter is not None
    return _painter.at(number)


class Ahead:
    """The same lessons, painted some steps ahead by a process of their own.

    Args:
        folder: where the pools lie.
        seed, batch: as a `Painter`'s.
        depth: lessons in stock.
    """

    def __init__(self, folder: Path, seed: int, *, batch: int = 20, depth: int = 6) -> None:
        self.depth = depth
        self._stock: deque[tuple[int, Future[Lesson]]] = deque()
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_open, initargs=(folder, seed, batch)
        )

    def at(self, number: int) -> Lesson:
        """See `Lessons`; quick when the numbers follow each other."""
        if self._stock and self._stock[0][0] != number:
            self._stock.clear()
        while len(self._stock) < self.depth:
            later = number + len(self._stock)
            self._stock.append((later, self._pool.submit(_paint, later)))
        return self._stock.popleft()[1].result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)
