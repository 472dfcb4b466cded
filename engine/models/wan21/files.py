"""Sources of the Wan2.1 family's weights: repository, revision, path, size and hash of each file.

Some files have no known hash, or a branch as their revision. `engine.models.weights` pins both at the first download.
"""

from __future__ import annotations

from dataclasses import replace

from engine.models.spec import WeightFile

_WAN = WeightFile(
    "", "", "", 0, repository="Wan-AI/Wan2.1-T2V-1.3B", revision="37ec512624d61f7aa208f7ea8140a131f93afc9a"
)
_STREAM = WeightFile(
    "dit", "", "", 0, repository="jerryfeng/StreamDiffusionV2", revision="2373eb2b39278b3a1aa174964a724ee78ead96f0"
)
_LIGHT = WeightFile(
    "", "", "", 0, repository="lightx2v/Autoencoders", revision="02cbfd1a0a336bbd87da49fd8cc155ed11ff123e"
)

SHARED = (
    replace(
        _WAN,
        role="vae",
        path="Wan2.1_VAE.pth",
        sha256="38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981",
        bytes=507_609_880,
    ),
    replace(_LIGHT, role="light_vae", path="lightvaew2_1.pth", about_bytes=32_000_000),
    replace(_LIGHT, role="tiny_vae", path="taew2_1.pth", about_bytes=22_700_000),
    replace(_LIGHT, role="light_tiny_vae", path="lighttaew2_1.pth", about_bytes=45_400_000),
    replace(
        _WAN,
        role="text",
        path="models_t5_umt5-xxl-enc-bf16.pth",
        sha256="7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d",
        bytes=11_361_920_418,
    ),
    replace(
        _WAN,
        role="tokenizer",
        path="google/umt5-xxl/tokenizer.json",
        sha256="6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b",
        bytes=16_837_417,
    ),
)
"""The files that all models share: autoencoders, text encoder, tokenizer. The 14B repository has the same files."""

STREAM_1_3B = (replace(_STREAM, path="wan_causal_dmd_v2v/model.pt", about_bytes=5_680_000_000), *SHARED)
STREAM_14B = (replace(_STREAM, path="wan_causal_dmd_v2v_14b/model.pt", about_bytes=28_600_000_000), *SHARED)
SELF_FORCING = (
    WeightFile(
        "dit",
        "checkpoints/self_forcing_dmd.pt",
        "a0413986d9734e02c09504e1520f5697ba6df731bb2f0f35577485e9cc8f56a3",
        5_676_252_553,
        repository="gdhe17/Self-Forcing",
        revision="2f8b779212da279d212c22a509b66ad6552f350e",
    ),
    *SHARED,
)
_CAUSAL_FORCING = WeightFile(
    "dit", "", "", 0, repository="zhuhz22/Causal-Forcing", revision="main", about_bytes=5_680_000_000
)

CAUSAL_FORCING_2 = (replace(_CAUSAL_FORCING, path="causal-forcing++/framewise-2step.pt"), *SHARED)
CAUSAL_FORCING_1 = (replace(_CAUSAL_FORCING, path="causal-forcing++/framewise-1step.pt"), *SHARED)
REWARD_FORCING = (
    replace(_CAUSAL_FORCING, repository="JaydenLu666/Reward-Forcing-T2V-1.3B", path="rewardforcing.pt"),
    *SHARED,
)
LIVE_EDIT = (replace(_CAUSAL_FORCING, repository="cp-cp/LiveEdit", path="ar-forcing_002000.pt"), *SHARED)
_LONGLIVE = WeightFile("", "", "", 0, repository="Efficient-Large-Model/LongLive-1.3B", revision="main")

LONGLIVE = (
    replace(
        _LONGLIVE,
        role="dit",
        path="models/longlive_base.pt",
        sha256="10a2aa8fcf89c77d9033f4c117405412a690e289625766619d293f0c5a208ee7",
        bytes=5_676_334_208,
    ),
    replace(
        _LONGLIVE,
        role="adapter",
        path="models/lora.pt",
        sha256="c4e43b87d62d4b0614b496773639f1ab170a7ee486dc23407901e9d3a5ebc07a",
        bytes=2_800_056_690,
    ),
    *SHARED,
)
