"""Pools of procedural clips on disk, since reading a clip is faster than rendering it.

Clip `i` of a pool depends only on the pool's seed and `i`, so a pool can be rendered in parts and by several processes,
and is the same on every machine, to the byte.

    python -m engine.models.ember.training.pool            # render (or complete) the pools for training
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch

from engine.models.ember.training.footage.film import film
from engine.models.ember.training.footage.scenes import clip

CACHE = Path(platformdirs.user_cache_dir("tidecast")) / "ember"
"""Default folder of pools and checkpoints."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of `count` clips with `frames` frames of `size` x `size` pixels, rendered from `seed`."""

    name: str
    count: int
    frames: int
    size: int
    seed: int

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Shape of the file's uint8 array: [count, frames, size, size, 3]."""
        return (self.count, self.frames, self.size, self.size, 3)

    def path(self, folder: Path) -> Path:
        """The file that holds the pool."""
        return folder / f"{self.name}-{self.seed}-{self.count}x{self.frames}x{self.size}.npy"

    def render(self, index: int) -> np.ndarray:
        """Render one clip [frames, size, size, 3] uint8."""
        return clip(np.random.default_rng((self.seed, index)), self.frames, self.size)

    def make(self, folder: Path) -> np.ndarray:
        """Render the missing clips and return the pool as a read-only memory map.

        A missing clip is all zero, which a rendered one never is, since it contains noise.
        """
        path = self.path(folder)
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=self.shape)
        clips = np.lib.format.open_memmap(path, mode="r+")
        for index in range(self.count):
            if not clips[index, 0].any():
                clips[index] = self.render(index)
        clips.flush()
        return np.load(path, mmap_mode="r")


@dataclass(frozen=True, slots=True)
class FilmPool(Pool):
    """A pool of films in 16:9, `size` pixels wide."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Shape of the file's uint8 array: [count, frames, height, width, 3]."""
        return (self.count, self.frames, self.size * 9 // 16, self.size, 3)

    def render(self, index: int) -> np.ndarray:
        """Render one film [frames, height, width, 3] uint8."""
        return film(np.random.default_rng((self.seed, index)), self.frames, *self.shape[2:4])


TRAINING = Pool("training", count=2400, frames=13, size=160, seed=1)
LARGE = Pool("large", count=300, frames=9, size=256, seed=2)
UNSEEN = Pool("unseen", count=64, frames=13, size=160, seed=900)
FILMS = FilmPool("films", count=1500, frames=9, size=288, seed=11)
UNSEEN_FILMS = FilmPool("unseen-films", count=32, frames=13, size=512, seed=910)
POOLS = (UNSEEN, TRAINING, LARGE)
FILM_POOLS = (FILMS, UNSEEN_FILMS)
"""The pools of the successor."""


def main() -> None:
    """Render the pools."""
    parser = argparse.ArgumentParser(description="Render the clips that Ember is trained on.")
    parser.add_argument("--folder", type=Path, default=CACHE, help="folder of the pools")
    parser.add_argument("--films", action="store_true", help="those of the successor")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for pool in FILM_POOLS if args.films else POOLS:
        pool.make(args.folder)
        print(pool.path(args.folder))


if __name__ == "__main__":
    main()
