"""A pool of procedural clips on disk, so that training draws pictures faster than it could paint them.

Clip `i` of a pool depends on the pool's seed and `i` alone, so a pool can be made in pieces, by several processes,
and made again elsewhere to the byte. Knows nothing of styles or networks.

    python -m engine.models.ember.training.pool            # paint (or finish) the pools that training reads
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch

from engine.models.ember.training.footage.scenes import clip

CACHE = Path(platformdirs.user_cache_dir("tidecast")) / "ember"
"""Where pools and checkpoints lie unless a command says otherwise."""


@dataclass(frozen=True, slots=True)
class Pool:
    """`count` clips of `frames` frames, `size` pixels square, from `seed`."""

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

    def paint(self, index: int) -> np.ndarray:
        """Render one clip, [frames, size, size, 3] uint8."""
        return clip(np.random.default_rng((self.seed, index)), self.frames, self.size)

    def make(self, folder: Path) -> np.ndarray:
        """Paint what is missing and return the pool as a read-only memory map.

        A clip that was not painted yet is all zero, which no painted clip is (its first pixel rows hold grain).
        """
        path = self.path(folder)
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=self.shape)
        clips = np.lib.format.open_memmap(path, mode="r+")
        for index in range(self.count):
            if not clips[index, 0].any():
                clips[index] = self.paint(index)
        clips.flush()
        return np.load(path, mmap_mode="r")


TRAINING = Pool("training", count=2400, frames=13, size=160, seed=1)
LARGE = Pool("large", count=300, frames=9, size=256, seed=2)
UNSEEN = Pool("unseen", count=64, frames=13, size=160, seed=900)
POOLS = (UNSEEN, TRAINING, LARGE)


def main() -> None:
    """Paint the pools."""
    parser = argparse.ArgumentParser(description="Paint the clips that Ember is trained on.")
    parser.add_argument("--folder", type=Path, default=CACHE, help="where the pools lie")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    for pool in POOLS:
        pool.make(folder)
        print(pool.path(folder))


if __name__ == "__main__":
    main()
