"""Training examples: crops of procedural clips, prompts, and the style target of each prompt for its crop.

Batch `n` depends only on the pools, the seed and `n`. So there is no reader whose position would have to be saved, and
another process can prepare batches in advance (`Ahead`).

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
"""Share of crops that are made still: flicker is most visible there, and only one frame has to be styled."""

FAR_SHARE = 0.6
"""Share of crops that are cut larger and scaled down."""

GRADED_SHARE = 0.6
"""Share of crops whose colour and contrast are changed."""

MEMORY_FROM = 1100
"""Step from which some lessons have an earlier group of frames."""

ROLLOUTS_FROM = 1100
"""Step from which some lessons have a second denoising step, with the network's own result as its input."""

Prompt = list[str]


def random_prompt(rng: random.Random) -> Prompt:
    """No word, a colour, a style, a style in a colour, two styles, or two styles in a colour; in random order."""
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
    """One batch, with pixels in [-1, 1].

    Attributes:
        content_BT3HW: the input.
        styled_BT3HW: its style targets at full strength.
        prompts: one prompt per clip.
    """

    content_BT3HW: Tensor
    styled_BT3HW: Tensor
    prompts: list[Prompt]


def crop(clips: np.ndarray, rng: random.Random, frames: int, size: int) -> Tensor:
    """A random crop of a random clip, with random scaling, grading, time reversal, mirroring and permuted colours.

    Rendered scenes are softer and more colourful than what cameras see. Scaling down makes edges as sharp as in a
    photograph, and grading changes contrast and saturation.

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
    """Reduce the saturation (1 keeps it) and stretch the contrast around the mean brightness; pixels in 0..1."""
    mean = luma(x_T3HW).mean()
    return ((saturate(x_T3HW, saturation) - mean) * contrast + mean).clamp(0, 1)


def draw(clips: np.ndarray, seed: int, number: int, *, batch: int, frames: int, size: int) -> Batch:
    """Batch `number` of the endless sequence of batches for this seed."""
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
    """The example for one training step: a batch, its number of successive groups of frames, and of denoising steps."""

    batch: Batch
    groups: int
    steps: int


class Lessons(Protocol):
    """An endless sequence of lessons."""

    def at(self, number: int) -> Lesson:
        """The lesson of step `number`."""
        ...


class Painter:
    """Prepares each lesson when it is requested.

    Args:
        clips, large: the pools of small and of large clips.
        seed: seed of the sequence.
        batch: clips in a lesson with crops of 64 x 64 pixels; lessons with larger crops have fewer.
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
    """The lessons of a `Painter`, prepared in advance by another process.

    Args:
        folder: folder of the pools.
        seed, batch: as for `Painter`.
        depth: lessons that are prepared in advance.
    """

    def __init__(self, folder: Path, seed: int, *, batch: int = 20, depth: int = 6) -> None:
        self.depth = depth
        self._prepared: deque[tuple[int, Future[Lesson]]] = deque()
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_open, initargs=(folder, seed, batch)
        )

    def at(self, number: int) -> Lesson:
        """See `Lessons`; fast if the numbers are consecutive."""
        if self._prepared and self._prepared[0][0] != number:
            self._prepared.clear()
        while len(self._prepared) < self.depth:
            later = number + len(self._prepared)
            self._prepared.append((later, self._pool.submit(_paint, later)))
        return self._prepared.popleft()[1].result()

    def close(self) -> None:
        """Stop the process."""
        self._pool.shutdown(cancel_futures=True)
