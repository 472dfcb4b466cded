"""What a streaming autoencoder remembers between calls, and the time-major layout that its layers work in.

Shape letters: N images (T * B, image t * B + b), B batch, C channels, T frames, H W sides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from engine.errors import ModelError


class CodecMemory:
    """Memory of one end of an autoencoder; implements `engine.models.spec.CodecState`.

    Tensors are allocated once and written in place. `started` ([1], int64, on the host) is 0 until the first
    frame has passed. `scratch` holds nothing between layers: it only spares allocations.
    """

    def __init__(self, memory: dict[str, Tensor]) -> None:
        self.memory = memory
        self.started = torch.zeros(1, dtype=torch.int64)
        self._scratch: dict[torch.Size, Tensor] = {}

    def reset(self) -> None:
        """Make it equal to a new state."""
        for tensor in self.tensors().values():
            tensor.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a call, by name of its layer; they are the state's own, not copies."""
        return {"started": self.started, **self.memory}

    def window(self, name: str, like_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's remembered images with room behind them for new ones like these; returns (window, the room).

        Channels last. The window is valid until the next one of its shape is asked for.
        """
        past = self.memory[name]
        shape = torch.Size((past.shape[0] + like_NCHW.shape[0], *like_NCHW.shape[1:]))
        if shape not in self._scratch:
            self._scratch[shape] = torch.empty(
                shape, dtype=past.dtype, device=past.device, memory_format=torch.channels_last
            )
        window = self._scratch[shape]
        window[: past.shape[0]].copy_(past)
        return window, window[past.shape[0] :]

    def remember(self, name: str, images_NCHW: Tensor) -> None:
        """Keep the newest of these images for the layer's next call."""
        past = self.memory[name]
        past.copy_(images_NCHW[-past.shape[0] :])


class CodecStates(ABC):
    """How a streaming autoencoder hands out its memories; a codec says what each end remembers (`_new_memory`)."""

    stride: int

    def encoder_state(self, batch: int, height: int, width: int) -> CodecMemory:
        """New memory for encoding `batch` streams of height x width pixels.

        Raises:
            ModelError: if a side is not a multiple of the stride.
        """
        return self._state("encoder", batch, height, width)

    def decoder_state(self, batch: int, height: int, width: int) -> CodecMemory:
        """New memory for decoding to height x width pixels; see `encoder_state`."""
        return self._state("decoder", batch, height, width)

    def _state(self, side: str, batch: int, height: int, width: int) -> CodecMemory:
        if height % self.stride or width % self.stride:
            raise ModelError(
                f"the picture is {width}x{height} pixels, but its sides must be multiples of {self.stride}.",
                "Choose another size.",
            )
        return self._new_memory(side, batch, height, width)

    @abstractmethod
    def _new_memory(self, side: str, batch: int, height: int, width: int) -> CodecMemory:
        """New memory of one end, "encoder" or "decoder"."""


def to_images(video_BCTHW: Tensor) -> Tensor:
    """A clip as time-major images [T * B, C, H, W], channels last."""
    images = video_BCTHW.permute(2, 0, 1, 3, 4).flatten(0, 1)
    return images.contiguous(memory_format=torch.channels_last)


def to_video(images_NCHW: Tensor, batch: int) -> Tensor:
    """Time-major images as a clip [B, C, T, H, W]."""
    return images_NCHW.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)
