"""The row of the network that finds people in a picture. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """One network that gives a mask for a picture.

    Attributes:
        name: unique.
        title: for people.
        width, height: the one size that it takes, in pixels. The whole picture is squeezed to it.
        weights: the file in the package.
        sha256: of that file.
        source, source_sha256: the package and the file that it was converted from, and the file's hash.
        licence: of the weights.
    """

    name: str
    title: str
    width: int
    height: int
    weights: Path
    sha256: str
    source: str
    source_sha256: str
    licence: str


SELFIE = MaskSpec(
    name="selfie",
    title="MediaPipe Selfie Segmentation, landscape",
    width=256,
    height=144,
    weights=Path(__file__).with_name("selfie.safetensors"),
    sha256="734f58dfd5e2c01f104f4dacbc1829cd9d1dfab7cf8837e84ae37a96f04291c7",
    source="npm @mediapipe/selfie_segmentation 0.1.1675465747, selfie_segmentation_landscape.tflite",
    source_sha256="4aafe6223bb8dac6fac8ca8ed56852870a33051ef3f6238822d282a109962894",
    licence="Apache-2.0",
)
