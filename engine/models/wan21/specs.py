"""Rows of the model table for the Wan2.1 family: StreamDiffusionV2, Self-Forcing and its relatives, a test model."""

from __future__ import annotations

from dataclasses import replace

from engine.models.spec import CacheShape, CodecFootprint, ModelSpec, Schedule
from engine.models.wan21 import files
from engine.network.dit_shape import DiTShape

DIT_1_3B = DiTShape(dim=1536, heads=12, layers=30, ffn=8960)
DIT_14B = DiTShape(dim=5120, heads=40, layers=40, ffn=13824)
DIT_TINY = DiTShape(dim=128, heads=4, layers=4, ffn=256, text_dim=64)

_TINY_CODEC = CodecFootprint(
    weights=34.7e6, encoder=126, decoder=168, windows=98, encode=920, decode=1030, together=True, window_frame=162
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
    unverified="Never run with the released weights; with random ones it equals the reference implementation.",
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

_NEVER_RUN = "Never run with the released weights"

SELF_FORCING = replace(
    WAN_1_3B,
    name="self-forcing-1.3b",
    title="Self-Forcing 1.3B (Wan2.1), three latent frames per block",
    cache=CacheShape(slots=21, sinks=0, rule="honest"),
    schedule=Schedule(
        steps=(1000, 750, 500, 250),
        default_steps=4,
        shift=5.0,
        strength=1.0,
        drop=0,
        warp=True,
        clean_pass=True,
    ),
    first_latents=3,
    frames_per_block=3,
    normalised_latents=True,
    files=files.SELF_FORCING,
    licence="Apache-2.0 (Wan2.1); Self-Forcing weights as published",
    notes="Distilled for text to video; at strengths below 1 it starts from the latents of the input.",
    ema=True,
    unverified=f"{_NEVER_RUN}; settings as in its repository.",
)
"""Text to video in chunks of three latent frames; the other rows of this family are variations of it.

Settings: guandeh17/Self-Forcing, configs/self_forcing_dmd.yaml and pipeline/causal_inference.py.
"""

LONGLIVE = replace(
    SELF_FORCING,
    name="longlive-1.3b",
    title="LongLive 1.3B (Wan2.1), three latent frames per block",
    cache=CacheShape(slots=12, sinks=3, rule="honest"),
    files=files.LONGLIVE,
    licence="Apache-2.0 (Wan2.1); LongLive weights as published",
    notes="Like Self-Forcing, with three sink frames in a window of twelve frames.",
    ema=False,
)
"""Settings: NVlabs/LongLive, branch v1.0, configs/longlive_inference.yaml."""

REWARD_FORCING = replace(
    SELF_FORCING,
    name="reward-1.3b",
    title="Reward-Forcing 1.3B (Wan2.1), three latent frames per block",
    cache=CacheShape(slots=9, sinks=3, rule="honest"),
    files=files.REWARD_FORCING,
    licence="Repository Apache-2.0; the weights' card names none",
    notes="Like LongLive, with a window of nine frames.",
    unverified=f"{_NEVER_RUN}. The release moves the sink frames slowly (moving average) and counts positions "
    "within the window; here the sinks stay and positions are absolute.",
)
"""Settings: JaydenLyh/Reward-Forcing, configs/reward_forcing.yaml."""

CAUSAL_FORCING_2 = replace(
    SELF_FORCING,
    name="causal-2step-1.3b",
    title="Causal-Forcing++ 1.3B (Wan2.1), one latent frame per block, two steps",
    schedule=replace(
        SELF_FORCING.schedule, steps=(1000, 500), default_steps=2, first_steps=SELF_FORCING.schedule.steps
    ),
    first_latents=1,
    frames_per_block=1,
    files=files.CAUSAL_FORCING_2,
    licence="Apache-2.0 (Wan2.1 and the weights' card)",
    notes="Low latency: a chunk is one latent frame and takes three forwards.",
    unverified=f"{_NEVER_RUN}. Its authors claim no more than 81 frames; a longer stream rolls its window of 21.",
)
"""Settings: thu-ml/Causal-Forcing, configs/causal_forcing_dmd_framewise_2step.yaml."""

CAUSAL_FORCING_1 = replace(
    CAUSAL_FORCING_2,
    name="causal-1step-1.3b",
    title="Causal-Forcing++ 1.3B (Wan2.1), one latent frame per block, one step",
    schedule=replace(CAUSAL_FORCING_2.schedule, steps=(1000,), default_steps=1),
    files=files.CAUSAL_FORCING_1,
    notes="Lowest latency: a chunk is one latent frame and takes two forwards.",
)
"""Settings: thu-ml/Causal-Forcing, configs/causal_forcing_dmd_framewise_1step.yaml."""

LIVE_EDIT = replace(
    SELF_FORCING,
    name="liveedit-1.3b",
    title="LiveEdit 1.3B (Wan2.1), edits video by instruction",
    network=replace(DIT_1_3B, source_channels=16),
    schedule=replace(SELF_FORCING.schedule, from_noise=True),
    files=files.LIVE_EDIT,
    licence="Code Apache-2.0; weights as published (check their card)",
    notes='The prompt is an instruction ("turn the coat red"); strength and motion have no effect.',
    ema=False,
    unverified=f"{_NEVER_RUN}. Whether its list of steps is to be warped is not certain: its configuration says so, "
    "and a public copy of its code does not.",
)
"""Settings: arXiv 2606.26740, and public descriptions of its code."""

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
    unverified="",
    notes="Its pictures are meaningless, since its weights are random.",
)

SPECS: tuple[ModelSpec, ...] = (
    WAN_1_3B,
    WAN_1_3B_FAST,
    WAN_14B,
    SELF_FORCING,
    LONGLIVE,
    REWARD_FORCING,
    CAUSAL_FORCING_2,
    CAUSAL_FORCING_1,
    LIVE_EDIT,
    TINY,
)
