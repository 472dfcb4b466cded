"""The state of a streaming autoencoder between calls, and the time-major layout of its layers.

Shape letters: N images (T * B, image t * B + b), B batch, C channels, T frames, H W sides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from engine.errors import ModelError


class CodecMemory:
    """State of an encoder or decoder: the past frames of each layer. Implements `engine.models.spec.CodecState`.

    Tensors are allocated once and written in place.

    Args:
        memory: for each layer by name, its past inputs [past * B, C, H, W].

    Attributes:
        started: int64 tensor [1] in host memory, 0 until the first frame has been processed.
    """

    def __init__(self, memory: dict[str, Tensor]) -> None:
        self.memory = memory
        self.started = torch.zeros(1, dtype=torch.int64)
        self._windows: dict[torch.Size, Tensor] = {}  # by shape, reused by all layers to save allocations

    def reset(self) -> None:
        """Return to the state of a new stream."""
        for tensor in self.tensors().values():
            tensor.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that persists between calls, by name of its layer; not copies."""
        return {"started": self.started, **self.memory}

    def window(self, name: str, like_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """A buffer with a layer's past images, followed by space for new ones of the shape of `like_NCHW`.

        Returns:
            The whole window [past * B + N, C, H, W], channels last, and the view [N, C, H, W] to write the new images
            to. Both are valid until a window of the same shape is requested.
        """
        past, window = self.buffers(name, like_NCHW)
        window[: past.shape[0]].copy_(past)
        return window, window[past.shape[0] :]

    def buffers(self, name: str, like_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's past images, and a buffer as `window` returns, in which nothing has been written."""
        past = self.memory[name]
        shape = torch.Size((past.shape[0] + like_NCHW.shape[0], *like_NCHW.shape[1:]))
        if shape not in self._windows:
            self._windows[shape] = torch.empty(
                shape, dtype=past.dtype, device=past.device, memory_format=torch.channels_last
            )
        return past, self._windows[shape]

    def remember(self, name: str, images_NCHW: Tensor) -> None:
        """Store the newest of these images as the layer's past."""
        past = self.memory[name]
        past.copy_(images_NCHW[-past.shape[0] :])


class CodecStates(ABC):
    """Base class of codecs whose state is a `CodecMemory`; a codec implements `_new_memory`."""

    stride: int

    def encoder_state(self, batch: int, height: int, width: int) -> CodecMemory:
        """A new state for encoding `batch` streams of height x width pixels.

        Raises:
            ModelError: if a side is not a multiple of the stride.
        """
        return self._state("encoder", batch, height, width)

    def decoder_state(self, batch: int, height: int, width: int) -> CodecMemory:
        """A new state for decoding `batch` streams to height x width pixels; raises as `encoder_state` does."""
        return self._state("decoder", batch, height, width)

    def _state(self, side: str, batch: int, height: int, width: int) -> CodecMemory:
        if height % self.stride or width % self.stride:
            raise ModelError(
                f"The picture has {width}x{height} pixels, but its sides must be multiples of {self.stride}.",
                "Choose another size.",
            )
        return self._new_memory(side, batch, height, width)

    @abstractmethod
    def _new_memory(self, side: str, batch: int, height: int, width: int) -> CodecMemory:
        """A new state of the `side` "encoder" or "decoder", all zero."""


def to_images(video_BCTHW: Tensor) -> Tensor:
    """A clip [B, C, T, H, W] as time-major images [T * B, C, H, W], channels last."""
    images = video_BCTHW.permute(2, 0, 1, 3, 4).flatten(0, 1)
    return images.contiguous(memory_format=torch.channels_last)


def to_video(images_NCHW: Tensor, batch: int) -> Tensor:
    """Time-major images as a clip [B, C, T, H, W]."""
    return images_NCHW.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)
