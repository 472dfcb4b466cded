"""The one model of the toy family, and the sizes of its network in a class of its own."""

from __future__ import annotations

from dataclasses import dataclass

from engine.models.spec import CacheShape, ModelSpec, Schedule


@dataclass(frozen=True, slots=True)
class ConvShape:
    """Sizes of the network: `width` channels, `layers` convolutions."""

    width: int = 32
    layers: int = 2
    latent_channels: int = 3
    patch: tuple[int, int, int] = (1, 1, 1)
    text_len: int = 4
    text_dim: int = 8
    heads: int = 1

    @property
    def head_dim(self) -> int:
        return self.width


SPECS = (
    ModelSpec(
        name="two-convolutions",
        family="tests.support.toy_family",
        title="Two convolutions",
        network=ConvShape(),
        cache=CacheShape(slots=5, sinks=1, rule="honest"),
        schedule=Schedule(steps=(900, 600, 300), default_steps=2, shift=1.0, drop=0, prediction="x0"),
        frames_per_latent=1,
        first_latents=1,
        stride=4,
        default_vae="tiny",
    ),
)
