"""Kernels and bytes of a chunk at true size, counted on the device `meta`, stay within bounds."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from engine.bench import kernel_count
from engine.bench.kernel_count import META, Counts, KernelCounter, count_chunk, meta_stream
from engine.models.wan21 import norm_silu


def counted(work: object) -> Counts:
    with KernelCounter() as counter:
        work()  # type: ignore[operator]
    return counter.counts


def test_operations_count_once_and_move_what_they_read_and_write() -> None:
    x, y = torch.empty(8, 16, device=META), torch.empty(8, 16, device=META)
    size = x.nbytes
    assert counted(lambda: x.view(16, 8).T).kernels.total() == 0, "views launch nothing"
    assert counted(lambda: torch.empty(3, device=META)).kernels.total() == 0
    assert counted(lambda: x + y).bytes["add"] == 3 * size
    assert counted(lambda: x.add_(y)).bytes["add_"] == 3 * size
    assert counted(lambda: torch.mul(x, y, out=x)).bytes["mul"] == 3 * size
    assert counted(lambda: x.copy_(y)).bytes["copy_"] == 2 * size
    assert counted(lambda: x + y[:1].expand(8, 16)).bytes["add"] == 2 * size + size // 8
    rows = torch.empty(2, dtype=torch.int64, device=META)
    assert counted(lambda: x.index_copy_(0, rows, y[:2])).bytes["index_copy_"] == 2 * size // 4
    assert counted(lambda: x[rows]).bytes["index"] == 2 * size // 4 + rows.nbytes
    assert counted(lambda: torch.ones(2) + 1).kernels.total() == 0, "what runs on the host"


def test_composites_count_as_what_they_launch_also_in_inference_mode() -> None:
    x, weight, bias = (torch.empty(size, device=META) for size in ((2, 8, 16), (32, 16), (32,)))
    with torch.inference_mode():
        assert counted(lambda: functional.linear(x, weight, bias)).kernels == {"addmm": 1}
        assert counted(lambda: functional.rms_norm(x, (16,))).kernels == {"_fused_rms_norm": 1}
        assert counted(lambda: functional.scaled_dot_product_attention(x, x, x)).kernels.total() == 1


def test_a_convolution_in_the_wrong_layout_is_transposed() -> None:
    x, weight = torch.empty(2, 16, 8, 8, device=META), torch.empty(32, 16, 3, 3, device=META)
    last = x.contiguous(memory_format=torch.channels_last)
    assert counted(lambda: functional.conv2d(x, weight)).kernels == {"convolution": 1}
    assert counted(lambda: functional.conv2d(last, weight)).kernels == {"convolution": 1, "transpose": 1}
    made = functional.conv2d(last, weight)
    with KernelCounter():
        made = functional.conv2d(last, weight)
    assert made.is_contiguous(memory_format=torch.channels_last)


# What the code had before its mending, by the same counter, for two rows and for the ends of a chunk.
BEFORE = {("wan21-1.3b", False): (2629, 34.5), ("wan21-1.3b", True): (4249, 83.1)}
BEFORE |= {("wan21-14b", False): (3489, 149.8), ("wan21-14b", True): (5649, 295.3)}
BEFORE_GB = {"full": (29.9, 48.2), "light": (7.6, 12.2), "tiny": (3.3, 4.5)}
ENDS_GB = {"full": (17.5, 27.0), "light": (4.5, 6.9), "tiny": (3.4, 3.7)}
WITHOUT_TRITON_GB = (22.5, 35.5)


@pytest.mark.parametrize(("model", "float8"), BEFORE)
def test_a_forward_launches_few_kernels(model: str, float8: bool) -> None:
    counts = count_chunk(meta_stream(model, "tiny", rows=2, float8=float8))["forward"]
    kernels, gigabytes = BEFORE[model, float8]
    assert counts.kernels.total() <= 0.6 * kernels
    assert counts.bytes.total() / 1e9 <= (0.5 if float8 else 0.95) * gigabytes


@pytest.mark.parametrize("vae", ENDS_GB)
def test_an_autoencoder_moves_few_bytes(vae: str) -> None:
    stages = count_chunk(meta_stream("wan21-1.3b", vae, rows=1))
    found = [stages[stage].bytes.total() / 1e9 for stage in ("encode", "decode")]
    assert found[0] <= ENDS_GB[vae][0]
    assert found[1] <= ENDS_GB[vae][1]
    if vae != "tiny":
        assert sum(found) <= 0.6 * sum(BEFORE_GB[vae])


def test_a_forward_in_8_bits_without_triton() -> None:
    counts = count_chunk(meta_stream("wan21-1.3b", "tiny", rows=2, float8=True, triton=False))["forward"]
    assert counts.kernels.total() <= 0.6 * BEFORE["wan21-1.3b", True][0]
    assert counts.bytes.total() <= 51e9


def test_the_full_autoencoder_without_triton() -> None:
    stages = count_chunk(meta_stream("wan21-1.3b", "full", rows=1, triton=False))
    for stage, limit in zip(("encode", "decode"), WITHOUT_TRITON_GB, strict=True):
        assert stages[stage].bytes.total() / 1e9 <= limit, stage


def test_an_operation_of_ours_reads_its_inputs_and_writes_what_it_changes() -> None:
    shape = {"memory_format": torch.channels_last, "device": META}
    x, past, window = (torch.empty(count, 8, 4, 4, **shape) for count in (4, 2, 6))
    gamma = torch.empty(8, device=META)
    counts = counted(lambda: norm_silu.fused(x, gamma, past, window))
    assert counts.kernels == {"norm_silu": 1}
    assert counts.bytes["norm_silu"] == x.nbytes + gamma.nbytes + 2 * past.nbytes + window.nbytes


def test_the_table_has_a_row_for_every_stage() -> None:
    rows = kernel_count.table(["wan21-tiny"], ["tiny"], [2])
    assert [(row["stage"], row.get("weights", row.get("vae"))) for row in rows] == [
        ("forward", "bf16"),
        ("forward", "float8"),
        ("forward", "float8"),
        ("encode", "tiny"),
        ("decode", "tiny"),
    ]
    assert all(row["kernels"] > 0 and row["gb"] > 0 for row in rows)
