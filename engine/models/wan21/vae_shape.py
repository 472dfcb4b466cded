"""Sizes of Wan2.1's video autoencoder and the statistics of its latents."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VAEShape:
    """Sizes of the autoencoder and the statistics of its latents.

    Attributes:
        base: channels at full resolution.
        latent: channels of a latent.
        multipliers: channels as multiples of `base`, for each resolution from the full one down, each half the one
            before.
        blocks: residual blocks per resolution.
        temporal: for each downsampling, whether it also halves time.
        mean, std: per latent channel, to normalise latents.
    """

    base: int = 96
    latent: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    temporal: tuple[bool, ...] = (False, True, True)
    mean: tuple[float, ...] = (
        -0.7571,
        -0.7089,
        -0.9113,
        0.1075,
        -0.1745,
        0.9653,
        -0.1517,
        1.5508,
        0.4134,
        -0.0715,
        0.5517,
        -0.3632,
        -0.1922,
        -0.9497,
        0.2503,
        -0.2921,
    )
    std: tuple[float, ...] = (
        2.8184,
        1.4541,
        2.3275,
        2.6558,
        1.2196,
        1.7708,
        2.6052,
        2.0743,
        3.2687,
        2.1526,
        2.8652,
        1.5579,
        1.6382,
        1.1253,
        2.8251,
        1.9160,
    )

    @property
    def stride(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def frames_per_latent(self) -> int:
        """Pixel frames of every latent frame but the first."""
        return int(2 ** sum(self.temporal))
