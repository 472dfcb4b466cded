"""Converts frames to a stream's pixels and back: scaling, value ranges, and the mix with the input at low strength.

The networks do not reproduce the input when little noise is mixed in. Therefore, at low strength, the restyled picture
(wet) is mixed with the input (dry), and at strength 0 the output equals the input exactly.

Shape letters: T pixel frames, H W pixels, C colours (RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from engine.chunker import Chunk
from engine.errors import ModelError
from engine.frame import Frame, PixelFormat
from engine.runtime.transfers import staging

FULLY_WET = 0.3
"""From this strength on, the output is the model's alone. Below it, the input is mixed in; at 0 it is the output."""

Pixels = npt.NDArray[np.uint8]
"""Pixels on the host: uint8."""


def fitted(frame: Frame, width: int, height: int) -> Frame:
    """The frame in RGB, scaled and cropped to the model's size if it has another."""
    rgb = frame.rgb()
    if (frame.width, frame.height) != (width, height):
        rgb = np.asarray(ImageOps.fit(Image.fromarray(np.ascontiguousarray(rgb)), (width, height)))
    return replace(frame, pixels=rgb, format=PixelFormat.RGB)


def stacked(frames: Sequence[Frame], device: torch.device) -> Tensor:
    """RGB frames as one tensor in host memory, page-locked for uploads to a GPU: uint8 [T, H, W, C]."""
    pixels = [frame.pixels for frame in frames]
    video_THWC = staging((len(pixels), *pixels[0].shape), device)
    np.stack(pixels, out=video_THWC.numpy())
    return video_THWC


def to_video(pixels_THWC: Tensor) -> Tensor:
    """Convert uint8 pixels to the input of a stream: fp32 in [-1, 1], [3, T, H, W]."""
    return pixels_THWC.permute(3, 0, 1, 2).float().div_(127.5).sub_(1.0)


def to_pixels(video_3THW: Tensor) -> Tensor:
    """Convert the output of a stream, in [-1, 1], to uint8 pixels [T, H, W, C]."""
    pixels_THWC = video_3THW.permute(1, 2, 3, 0).float().add(1.0).mul_(127.5).round_().clamp_(0, 255)
    return pixels_THWC.to(torch.uint8).contiguous()


def restyled(chunk: Chunk, pixels_THWC: Pixels, strength: float) -> Chunk:
    """The chunk with its restyled frames, which keep the timestamps and metadata of the input frames.

    At low strength they are mixed with the input frames.

    Args:
        chunk: the input frames and the controls.
        pixels_THWC: the restyled pixels.
        strength: the strength with which the chunk was begun, 0 to 1.

    Raises:
        ModelError: if the numbers of frames differ.
    """
    if len(pixels_THWC) != len(chunk.frames):
        raise ModelError(f"{len(chunk.frames)} frames went in, {len(pixels_THWC)} came out.")
    wet = _wet(strength)
    pairs = zip(chunk.frames, pixels_THWC, strict=True)
    return replace(chunk, frames=tuple(replace(f, pixels=_blend(f.pixels, pixels, wet)) for f, pixels in pairs))


def _wet(strength: float) -> float:
    """Share of the restyled picture in the output: a smoothstep from 0 at strength 0 to 1 at `FULLY_WET`."""
    x = min(strength / FULLY_WET, 1.0)
    return x * x * (3 - 2 * x)


def _blend(dry: Pixels, wet: Pixels, share: float) -> Pixels:
    if share >= 1.0:
        return wet
    if share <= 0.0:
        return np.ascontiguousarray(dry)
    mixed = dry.astype(np.float32) + (wet.astype(np.float32) - dry) * np.float32(share)
    return np.rint(mixed).astype(np.uint8)
