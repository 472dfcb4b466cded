"""Moving photographs for evaluation; they are not used in training. They come with scikit-image."""

from __future__ import annotations

import numpy as np
import torch
from skimage import data
from skimage.transform import resize
from torch import Tensor
from torch.nn import functional

NAMES = ("astronaut", "chelsea", "coffee", "rocket")


def photograph(name: str, size: int) -> Tensor:
    """The central square of a photograph, resized to [3, size, size], in 0..1."""
    picture = getattr(data, name)()
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = resize(picture[top : top + side, left : left + side], (size, size), anti_aliasing=True)
    return torch.from_numpy(square.astype(np.float32)).permute(2, 0, 1)


def moving(picture_3HW: Tensor, frames: int, speed: tuple[int, int] = (2, 1)) -> Tensor:
    """A clip [frames, 3, H, W] in which the picture moves by whole pixels per frame; it is mirrored at its edges.

    Args:
        picture_3HW: pixels in 0..1.
        frames: length of the clip.
        speed: pixels per frame to the left and upwards.
    """
    wide = functional.pad(picture_3HW[None], (0, speed[0] * frames, 0, speed[1] * frames), mode="reflect")[0]
    height, width = picture_3HW.shape[-2:]
    cuts = [wide[:, speed[1] * n : speed[1] * n + height, speed[0] * n : speed[0] * n + width] for n in range(frames)]
    return torch.stack(cuts)
