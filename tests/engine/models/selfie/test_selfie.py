"""The network that finds people gives what the original file gives in its own runtime, and refuses other weights."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import CheckpointError, WeightsMissingError
from engine.models.selfie import tflite
from engine.models.selfie.convert import convert
from engine.models.selfie.masker import Masker, read
from engine.models.selfie.network import SelfieNetwork
from engine.models.selfie.specs import SELFIE
from engine.runtime.device import one_thread_here

VECTORS = Path(__file__).with_name("vectors.npz")
"""Pictures, uint8 [N, H, W, 3], and what ai-edge-litert gave for them, times 65535: uint16 [N, H, W].

How they were made is in engine/models/selfie/README.md.
"""


@pytest.fixture(scope="module")
def network() -> SelfieNetwork:
    return read(SELFIE.weights, SELFIE.sha256)


def test_outputs_are_those_of_the_original_runtime(network: SelfieNetwork) -> None:
    with np.load(VECTORS) as vectors:
        pictures, expected = vectors["pictures"], vectors["expected"].astype(np.float32) / 65535.0
    assert pictures.shape[1:] == (SELFIE.height, SELFIE.width, 3) and len(pictures) >= 3
    with torch.inference_mode():
        made = network(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255.0)[:, 0].numpy()
    assert np.abs(made - expected).max() < 1e-3
    share = (expected > 0.5).mean((1, 2))
    assert share.max() > 0.2 and share.min() < 0.02, "with a person and without"


def test_masks_are_the_networks_outputs_in_bytes(network: SelfieNetwork) -> None:
    with np.load(VECTORS) as vectors:
        picture, expected = vectors["pictures"][0], vectors["expected"][0].astype(np.float32) / 257.0
    mask = Masker().mask(picture)
    assert mask.dtype == np.uint8 and mask.shape == (SELFIE.height, SELFIE.width)
    assert np.abs(mask - expected).max() < 1.0
    with pytest.raises(ValueError, match="144, 256, 3"):
        Masker().mask(picture[:100])


def test_it_has_as_many_numbers_as_the_original(network: SelfieNetwork) -> None:
    assert sum(tensor.numel() for tensor in network.parameters()) == 106_401


def test_other_weights_are_refused(tmp_path: Path) -> None:
    data = bytearray(SELFIE.weights.read_bytes())
    data[-1] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        Masker(dataclasses.replace(SELFIE, weights=damaged))
    with pytest.raises(WeightsMissingError, match="Reinstall"):
        Masker(dataclasses.replace(SELFIE, weights=tmp_path / "missing"))


def test_the_conversion_takes_the_original_file_alone() -> None:
    with pytest.raises(CheckpointError, match="another file"):
        convert(b"1234TFL3")
    with pytest.raises(CheckpointError, match="no TFLite file"):
        tflite.read(b"\0" * 64)
    with pytest.raises(CheckpointError, match="cannot be read"):
        tflite.read(b"\xff\0\0\0TFL3")


def test_one_thread_here_leaves_other_threads_their_number() -> None:
    before = torch.get_num_threads()
    seen: dict[str, int] = {}

    def alone() -> None:
        one_thread_here()
        seen["here"] = torch.get_num_threads()

    for name, work in (("first", alone), ("later", lambda: seen.update(later=torch.get_num_threads()))):
        thread = threading.Thread(target=work, name=name)
        thread.start()
        thread.join()
    assert seen == {"here": 1, "later": before} and torch.get_num_threads() == before
