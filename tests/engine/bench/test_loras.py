"""The benchmarks of LoRAs run and count right. The measured times themselves are not tested."""

from __future__ import annotations

import pytest
import torch

from engine.bench.loras import merge, sweep
from engine.config import Config
from engine.errors import ModelError
from engine.models import registry
from engine.models.wan21.specs import DIT_1_3B, DIT_14B
from engine.network.dit_shape import DiTShape


def test_eight_faders_are_swept_and_nothing_moves() -> None:
    config = Config(model="wan21-tiny", width=32, height=32, device="cpu", threads=1)
    row = sweep.measure(config, rank=2, stretches=1)
    assert (row["loras"], row["moved"]) == (8, 0)
    assert row["merged_kib"] >= 0 and row["refreshed"] >= 0
    assert row["ratio"] > 0 and row["still_ms"]["p50"] > 0
    before, after = (sweep.controls_at(at).lora_strengths() for at in (1.0, 1.1))
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert sweep.controls_at(1.0) == sweep.controls_at(1.0 + 0.4 / sweep.HZ), "60 moves a second"


def test_a_model_without_loras_is_refused() -> None:
    registry.register("tests.support.toy_family")
    with pytest.raises(ModelError, match="takes no LoRA"):
        sweep.measure(Config(model="two-convolutions", width=48, height=32))


@pytest.mark.parametrize(
    ("shape", "rank", "weights", "gflop", "gb", "file_mb", "ms"),
    [
        (DIT_1_3B, 16, 1.392, 45, 5.57, 44, 1.7),
        (DIT_1_3B, 128, 1.392, 356, 5.57, 350, 1.7),
        (DIT_14B, 32, 14.05, 899, 56.2, 307, 17),
    ],
)
def test_the_arithmetic_of_a_merge(
    shape: DiTShape, rank: int, weights: float, gflop: float, gb: float, file_mb: float, ms: float
) -> None:
    found = merge.arithmetic(shape, rank)
    wanted = {"weights": weights, "gflop": gflop, "gb": gb, "file_mb": file_mb, "at_3350_ms": ms}
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=0.03), name
    assert found["kept_gb"] == pytest.approx(2 * weights, rel=0.01)


def test_one_block_is_timed_and_all_are_counted() -> None:
    clock = iter(range(100))
    shape = DiTShape(dim=32, heads=2, layers=7, ffn=48)
    row = merge.measure("tiny", shape, 2, torch.device("cpu"), now=lambda: float(next(clock)))
    assert (row["block_ms"], row["whole_ms"]) == (1000, 7000)
    assert row["here_gbs"] == pytest.approx(row["gb"] / 7)
