"""Operations and memory traffic of a chunk, counted from the shapes, and the least time that a device needs for them.

A chunk is one latent frame (four pixel frames), or the frames of a block. A matmul of [m, k] and [k, n] counts as
2 m k n operations. Only matmuls, convolutions and attention are counted; everything else is negligible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class NetworkShape(Protocol):
    """The fields of `engine.network.dit_shape.DiTShape` that planning uses."""

    @property
    def dim(self) -> int:
        """Width of the network."""
        ...

    @property
    def layers(self) -> int:
        """Number of blocks."""
        ...

    @property
    def ffn(self) -> int:
        """Width inside the feed-forward network."""
        ...

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        ...

    @property
    def source_channels(self) -> int:
        """Channels of the source's latents in the input."""
        ...

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of a token."""
        ...

    @property
    def text_dim(self) -> int:
        """Width of a text embedding."""
        ...

    @property
    def text_len(self) -> int:
        """Text tokens of a prompt."""
        ...


def tokens(shape: NetworkShape, height: int, width: int, stride: int = 8) -> int:
    """Tokens of one latent frame."""
    return (height // (stride * shape.patch[1])) * (width // (stride * shape.patch[2]))


def dit_flops(shape: NetworkShape, length: int, window: int) -> float:
    """Operations of one row with `length` tokens that attend to `window` keys. Text keys are cached, so not counted."""
    d = shape.dim
    attention = 2 * 4 * length * d * d + 2 * 2 * length * window * d
    cross = 2 * 2 * length * d * d + 2 * 2 * length * shape.text_len * d
    ffn = 2 * 2 * length * d * shape.ffn
    return float(shape.layers * (attention + cross + ffn) + 2 * length * sum(_patch(shape)) * d)


def chunk_forwards(steps: int, *, batch: bool = True, clean_pass: bool = False, fused: bool = True) -> tuple[int, int]:
    """Forwards of a chunk, and the sum of their rows: weights are read once a forward, and each row costs arithmetic.

    Args:
        steps: denoising steps.
        batch: whether the steps of successive chunks share one forward (stream batch).
        clean_pass: whether each chunk needs the finished history of the one before (`Schedule.clean_pass`). Its steps
            then follow each other, whatever `batch` says, and the clean pass is one row more.
        fused: whether the clean pass shares the next chunk's first forward.
    """
    if clean_pass:
        return (steps if fused else steps + 1), steps + 1
    return (1 if batch else steps), steps


def dit_parameters(shape: NetworkShape, layers: int | None = None) -> float:
    """Number of parameters of the network; `layers` counts another number of blocks than it has."""
    d = shape.dim
    block = 8 * (d * d + d) + 4 * d + 2 * d * shape.ffn + shape.ffn + d + 6 * d + 2 * d
    inward, outward = _patch(shape)
    text = shape.text_dim * d + d * d + 2 * d
    time = 256 * d + d * d + 2 * d + 6 * d * d + 6 * d
    ends = (inward + outward) * d + outward + d + 2 * d
    return float((shape.layers if layers is None else layers) * block + ends + text + time)


def _patch(shape: NetworkShape) -> tuple[int, int]:
    """Numbers of a token's patch, before and after the network."""
    places = shape.patch[0] * shape.patch[1] * shape.patch[2]
    return (shape.latent_channels + shape.source_channels) * places, shape.latent_channels * places


def cache_bytes(shape: NetworkShape, length: int, slots: int, element_bytes: int = 2) -> float:
    """Bytes of the keys and values of one row of the rolling cache."""
    return 2.0 * shape.layers * length * slots * shape.dim * element_bytes


def _res(c_in: int, c_out: int) -> int:
    """Operations per position of a residual block: two 3x3x3 convolutions, and a 1x1x1 one if the width changes."""
    return 2 * (27 * c_in * c_out + 27 * c_out * c_out + (c_in * c_out if c_in != c_out else 0))


def _middle(c: int, positions: int) -> int:
    """Operations of two residual blocks and the attention with one head, for one latent frame."""
    return positions * (2 * _res(c, c) + 2 * 4 * c * c) + 4 * positions * positions * c


def vae_encode_flops(height: int, width: int, base: int = 96) -> float:
    """Operations of Wan's full VAE to encode one chunk of four frames."""
    full, half, quarter, eighth = (height * width // 4**n for n in range(4))
    a, b, c = base, 2 * base, 4 * base
    return float(
        4 * full * (2 * 27 * 3 * a + 2 * _res(a, a))
        + 4 * half * (2 * 9 * a * a + _res(a, b) + _res(b, b))
        + 4 * quarter * 2 * 9 * b * b
        + 2 * quarter * (2 * 3 * b * b + _res(b, c) + _res(c, c))
        + 2 * eighth * 2 * 9 * c * c
        + eighth * (2 * 3 * c * c + 2 * _res(c, c) + 2 * 27 * c * 32)
        + _middle(c, eighth)
    )


def vae_decode_flops(height: int, width: int, base: int = 96) -> float:
    """Operations of Wan's full VAE to decode one latent frame to four frames."""
    full, half, quarter, eighth = (height * width // 4**n for n in range(4))
    a, b, c = base, 2 * base, 4 * base
    return float(
        eighth * (2 * 27 * 16 * c + 3 * _res(c, c) + 2 * 3 * c * 2 * c)
        + _middle(c, eighth)
        + 2 * quarter * (2 * 9 * c * b + _res(b, c) + 2 * _res(c, c) + 2 * 3 * c * 2 * c)
        + 4 * half * (2 * 9 * c * b + 3 * _res(b, b))
        + 4 * full * (2 * 9 * b * a + 3 * _res(a, a) + 2 * 27 * a * 3)
    )


TINY_VAE_SHARE = 0.04
"""Upper bound of a tiny VAE's operations as a share of the full VAE's, encoding and decoding together."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Peak rates of a device.

    Attributes:
        flops: operations per second.
        bytes: bytes of memory traffic per second.
    """

    flops: float
    bytes: float

    def seconds(self, flops: float, traffic: float = 0.0) -> float:
        """Least time for these operations and bytes of memory traffic, which at best overlap completely."""
        return max(flops / self.flops, traffic / self.bytes)
