"""Rows of the model table for the Wan2.1 family: StreamDiffusionV2, Self-Forcing, LongLive, and a test model."""

from __future__ import annotations

from dataclasses import replace

from engine.models.spec import CacheShape, CodecFootprint, ModelSpec, Schedule
from engine.models.wan21 import files
from engine.network.dit_shape import DiTShape

DIT_1_3B = DiTShape(dim=1536, heads=12, layers=30, ffn=8960)
DIT_14B = DiTShape(dim=5120, heads=40, layers=40, ffn=13824)
DIT_TINY = DiTShape(dim=128, heads=4, layers=4, ffn=256, text_dim=64)

_TINY_CODEC = CodecFootprint(
    weights=34.7e6, encoder=126, decoder=168, windows=682, encode=920, decode=1030, together=True
)
CODECS = {
    "full": CodecFootprint(weights=501e6, encoder=2808, decoder=4729, windows=6872, encode=2328, decode=7297),
    "light": CodecFootprint(weights=32e6, encoder=711, decoder=1183, windows=1760, encode=600, decode=1825),
    "tiny": _TINY_CODEC,
    "light-tiny": _TINY_CODEC,
}
"""As `tests/engine/rehearsal/test_vram.py` measures them on shapes."""

WAN_1_3B = ModelSpec(
    name="wan21-1.3b",
    family="wan21",
    title="StreamDiffusionV2 1.3B (Wan2.1)",
    network=DIT_1_3B,
    cache=CacheShape(slots=6, sinks=3, threshold=0.2),
    schedule=Schedule(),
    files=files.STREAM_1_3B,
    licence="Apache-2.0 (Wan2.1); StreamDiffusionV2 weights as published",
    codecs=CODECS,
    needs_gpu=True,
)
"""Video to video with two denoising steps; most other rows are variations of this one."""

WAN_14B = replace(
    WAN_1_3B,
    name="wan21-14b",
    title="StreamDiffusionV2 14B (Wan2.1)",
    network=DIT_14B,
    schedule=replace(WAN_1_3B.schedule, default_steps=1),
    files=files.STREAM_14B,
)

WAN_1_3B_FAST = replace(
    WAN_1_3B,
    name="wan21-1.3b-fast",
    title="StreamDiffusionV2 1.3B with a smaller cache and the tiny autoencoder",
    cache=CacheShape(slots=5, sinks=2),
    default_vae="tiny",
)

SELF_FORCING = replace(
    WAN_1_3B,
    name="self-forcing-1.3b",
    title="Self-Forcing 1.3B (Wan2.1), three latent frames per block",
    cache=CacheShape(slots=21, sinks=0, rule="honest"),
    schedule=Schedule(steps=(1000, 750, 500, 250), default_steps=4, shift=5.0, strength=1.0, drop=0),
    first_latents=3,
    frames_per_block=3,
    normalised_latents=True,
    files=files.SELF_FORCING,
    licence="Apache-2.0 (Wan2.1); Self-Forcing weights as published",
    notes="Distilled for text to video; at strengths below 1 it starts from the latents of the input.",
)

LONGLIVE = replace(
    SELF_FORCING,
    name="longlive-1.3b",
    title="LongLive 1.3B (Wan2.1), three latent frames per block",
    cache=CacheShape(slots=15, sinks=3, rule="honest"),
    files=files.LONGLIVE,
    licence="Apache-2.0 (Wan2.1); LongLive weights as published",
    notes="Like Self-Forcing, with sink frames and a window of twelve frames.",
)

TINY = replace(
    WAN_1_3B,
    name="wan21-tiny",
    title="Random weights of a tiny shape, for tests",
    network=DIT_TINY,
    vae={"base": 8, "blocks": 1},
    files=(),
    licence="",
    codecs={},
    needs_gpu=False,
    notes="Its pictures are meaningless, since its weights are random.",
)

SPECS: tuple[ModelSpec, ...] = (WAN_1_3B, WAN_1_3B_FAST, WAN_14B, SELF_FORCING, LONGLIVE, TINY)
