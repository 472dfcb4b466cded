"""Photographs set in motion, to test on; nothing is ever trained on them.

They are the ones that scikit-image bundles.
"""

from __future__ import annotations

import numpy as np
import torch
from skimage import data
from skimage.transform import resize
from torch import Tensor
from torch.nn import functional

NAMES = ("astronaut", "chelsea", "coffee", "rocket")


def photograph(name: str, size: int) -> Tensor:
    """A square cut-out of a photograph, [3, size, size] in 0..1."""
    picture = getattr(data, name)()
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = resize(picture[top : top + side, left : left + side], (size, size), anti_aliasing=True)
    return torch.from_numpy(square.astype(np.float32)).permute(2, 0, 1)


def moving(picture_3HW: Tensor, frames: int, speed: tuple[int, int] = (2, 1)) -> Tensor:
    """The picture slides by whole pixels per frame and comes back in, mirrored; [frames, 3, H, W] in 0..1."""
    reach = max(speed) * frames
    wide = functional.pad(picture_3HW[None], (0, reach, 0, reach), mode="reflect")[0]
    height, width = picture_3HW.shape[-2:]
    cuts = [wide[:, speed[1] * n : speed[1] * n + height, speed[0] * n : speed[0] * n + width] for n in range(frames)]
    return torch.stack(cuts)
