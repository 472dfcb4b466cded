"""Ember's row in the model table: a network of Wan's architecture that is small enough for two CPU cores."""

from __future__ import annotations

from engine.models.ember.vocabulary import EMBER as WORDS
from engine.models.spec import CacheShape, ModelSpec, Schedule
from engine.network.dit_shape import DiTShape

EMBER = ModelSpec(
    name="ember",
    family="ember",
    title="Ember (embedded, runs on any machine)",
    network=DiTShape(
        dim=256,
        heads=8,
        layers=4,
        ffn=1024,
        latent_channels=64,
        text_dim=64,
        text_len=8,
        freq_dim=128,
        rope_base=64.0,
    ),
    cache=CacheShape(slots=3, sinks=0, wrap_at=1000, rule="honest"),
    schedule=Schedule(
        steps=(1000, 890, 860, 830),
        default_steps=2,
        shift=1.0,
        strength=1.0,
        drop=0,
        prediction="x0",
        fixed_noise=True,
    ),
    vae={"look": 16},
    default_vae="full",
    normalised_latents=True,
    licence="the licence of this software",
    vocabulary=WORDS,
    strength_curve=(0.0, 0.165, 0.211, 0.247, 0.285, 0.323, 0.365, 0.412, 0.455, 0.507, 0.7),
    blend_gain=1.7,
    notes="Knows only the words of its vocabulary; see the MODEL_CARD.md next to its weights.",
)

SPECS = (EMBER,)
