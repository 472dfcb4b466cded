"""8-bit matmuls: equal to plain matmuls of the quantised numbers, small error, refused where they are not possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine import opening
from engine.config import Config
from engine.errors import ModelError
from engine.models import registry
from engine.models.wan21.specs import DIT_14B
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape
from engine.runtime import quantise
from engine.session import Session
from tests.engine.rehearsal.meta_stream import Ledger, in_host_memory
from tests.engine.stream.test_stream import SPEC, latents, network, run, stream
from tests.engine.test_session import play

SHAPE = DiTShape(dim=64, heads=2, layers=2, ffn=128, text_dim=16, text_len=6, freq_dim=32)


def taken_back(x8: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x8.double() * scale.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_that_of_the_rounded_numbers(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(48, 64, generator=generator, dtype=dtype), torch.randn(48, generator=generator).to(dtype)
    x = torch.randn(2, 5, 64, generator=generator, dtype=dtype) * torch.tensor([0.01, 30.0]).to(dtype)[:, None, None]
    found = quantise.Float8Linear(weight, bias)(x)
    wanted = functional.linear(
        taken_back(*quantise.to_float8(x.flatten(0, 1))), taken_back(*quantise.to_float8(weight)), bias.double()
    )
    assert found.dtype == dtype and found.shape == (2, 5, 48)
    error = (found.double().flatten(0, 1) - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert error.max() < (2e-6 if dtype == torch.float32 else 4e-3)


def test_rounding_keeps_the_largest_number_and_zero_rows() -> None:
    x = torch.tensor([[1e-3, -5e-4, 0.0, 2e-4], [0.0, 0.0, 0.0, 0.0], [3e4, -1.0, 2.0, 1e4]])
    back = taken_back(*quantise.to_float8(x))
    assert back.isfinite().all()
    torch.testing.assert_close(back.abs().amax(1), x.double().abs().amax(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(back[0], x[0].double(), rtol=2**-4, atol=0)


def test_a_network_in_8_bits_stays_near_and_holds_its_products_in_8_bits() -> None:
    spec = replace(SPEC, network=SHAPE)
    wide, narrow = network(SHAPE), network(SHAPE)
    quantise.quantise(narrow)
    xs = latents(1, 2) + latents(10, seed=1)
    exact, rough = (run(stream(spec, dit=dit), xs, (700, 500)) for dit in (wide, narrow))
    for (_, a), (_, b) in zip(exact, rough, strict=True):
        assert 1e-4 < float((a - b).norm() / a.norm()) < 0.05
    held = sum(t.nbytes for t in narrow.buffers() if t.dtype == torch.float8_e4m3fn)
    assert held == SHAPE.layers * (6 * SHAPE.dim**2 + 2 * SHAPE.dim * SHAPE.ffn)
    assert max(t.numel() for n, t in narrow.blocks.named_parameters() if "cross_attn" not in n) <= 6 * SHAPE.dim


def test_a_session_in_8_bits_plays_near_the_wide_one() -> None:
    config = Config(model="wan21-tiny", width=32, height=32, device="cpu")
    with Session.open(config) as wide:
        wanted = play(wide, range(21))
    with Session.open(config.model_copy(update={"weights_dtype": "float8", "compile": "graphs"})) as narrow:
        found = play(narrow, range(21))
    assert [f.seq for f in wanted] == [f.seq for f in found]
    off = np.concatenate([(a.pixels.astype(int) - b.pixels).ravel() for a, b in zip(wanted, found, strict=True)])
    assert 0 < np.abs(off).mean() < 2.0


def test_where_it_cannot_be_had_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "RTX 3090")
    with pytest.raises(ModelError, match=r"RTX 3090 has compute capability 8\.6"):
        quantise.check(cuda, torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    tried: list[torch.device] = []
    monkeypatch.setattr(quantise, "scaling_for", lambda device, dtype: tried.append(device))
    quantise.check(cuda, torch.bfloat16)
    assert tried == [cuda], "it is tried before it is promised"
    with pytest.raises(ModelError, match="float16"):
        quantise.check(cuda, torch.float16)
    with pytest.raises(ModelError, match="one device"):
        quantise.check(cuda, torch.bfloat16, devices=2)
    with pytest.raises(ModelError, match="multiples of 16"):
        quantise.quantise(network(replace(SHAPE, dim=40)))


def refusing(*refused: quantise.Scaling) -> Callable[..., torch.Tensor]:
    """`torch._scaled_mm` of a build that lacks the kernels for some scalings."""
    matmul = torch._scaled_mm

    def build(x: torch.Tensor, *args: Any, scale_a: torch.Tensor, **settings: Any) -> torch.Tensor:
        scaling = quantise.Scaling.TENSOR if scale_a.numel() == 1 else quantise.Scaling.ROW
        if scaling in refused:
            raise RuntimeError("Rowwise scaling is not currently supported on your device")
        return matmul(x, *args, scale_a=scale_a, **settings)

    return build


def test_without_row_wise_matmuls_one_scale_serves_a_matrix_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "_scaled_mm", refusing(quantise.Scaling.ROW))
    assert quantise.scaling_for(torch.device("cpu"), torch.float32) is quantise.Scaling.TENSOR
    spec = replace(SPEC, network=SHAPE)
    wide, narrow = network(SHAPE), network(SHAPE)
    quantise.quantise(narrow)
    assert "one scale for a whole matrix" in caplog.text
    xs = latents(1, 2) + latents(10, seed=1)
    exact, rough = (run(stream(spec, dit=dit), xs, (700, 500)) for dit in (wide, narrow))
    for (_, a), (_, b) in zip(exact, rough, strict=True):
        assert 1e-4 < float((a - b).norm() / a.norm()) < 0.08


def test_without_any_8_bit_matmul_it_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_scaled_mm", refusing(*quantise.Scaling))
    with pytest.raises(ModelError, match=r"not currently supported.*weights_dtype"):
        quantise.scaling_for(torch.device("cpu"), torch.float32)


def test_rounding_without_a_clamp_equals_rounding_with_one() -> None:
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16) * 7
    found, scale = quantise.to_float8(x)
    wanted = (x.float() / scale).clamp(-quantise.FLOAT8_MAX, quantise.FLOAT8_MAX).to(torch.float8_e4m3fn)
    assert torch.equal(found.view(torch.uint8), wanted.view(torch.uint8))
    assert torch.equal(scale[:, 0], (x.abs().amax(1).float() / quantise.FLOAT8_MAX).clamp(min=quantise.MIN_SCALE))


def test_the_device_never_holds_more_than_the_8_bit_network_and_one_block_in_16_bits() -> None:
    with torch.device("meta"):
        dit = CausalDiT(replace(DIT_14B, layers=6)).to(torch.bfloat16)
    in_host_memory(dit)
    block = sum(tensor.nbytes for tensor in dit.blocks[0].parameters())
    with Ledger() as ledger:
        quantise.quantise(dit, torch.device("meta"))
    assert ledger.most <= ledger.live + 1.5 * block, "the block, and its fused or rounded copies"
    assert {tensor.device.type for tensor in (*dit.parameters(), *dit.buffers())} == {"meta"}


def test_moved_block_by_block_or_in_place_the_8_bit_network_is_the_same() -> None:
    here, moved = network(SHAPE), network(SHAPE)
    quantise.quantise(here)
    quantise.quantise(moved, torch.device("cpu"))
    wanted, found = dict(here.named_buffers()), dict(moved.named_buffers())
    assert wanted.keys() == found.keys() and len(wanted) == 6 * 3 * SHAPE.layers
    assert all(torch.equal(tensor.view(torch.uint8), found[name].view(torch.uint8)) for name, tensor in wanted.items())


@pytest.mark.parametrize("scaling", quantise.Scaling)
def test_every_8_bit_layer_uses_the_kernel_that_works_here(
    scaling: quantise.Scaling, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[torch.device, torch.dtype]] = []
    calls: list[torch.Size] = []

    def kernel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(x.shape)
        return quantise.to_float8(x)

    def kernel_for(device: torch.device, dtype: torch.dtype) -> quantise.Rows:
        tried.append((device, dtype))
        return kernel

    spec, xs = replace(SPEC, network=SHAPE), latents(1, 2)
    plain, fast = network(SHAPE), network(SHAPE)
    monkeypatch.setattr(quantise, "scaling_for", lambda *_: scaling)
    quantise.quantise(plain)
    monkeypatch.setattr(quantise, "kernel_for", kernel_for)
    quantise.quantise(fast)
    wanted, found = (run(stream(spec, dit=dit), xs, (700, 500)) for dit in (plain, fast))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(wanted, found, strict=True))
    if scaling is quantise.Scaling.ROW:
        assert tried == [(torch.device("cpu"), torch.float32)]
        assert len(calls) == 2 * 6 * SHAPE.layers, "every 8-bit layer of both steps"
    else:
        assert not calls, "the kernel gives one scale for each row"


def test_a_file_is_quantised_from_host_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network in 16 bits may be larger than the device."""
    dit = network(registry.get("wan21-tiny").network)
    torch.save(dit.state_dict(), tmp_path / "model.pt")
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(opening, "_prepare_device", lambda *_: (torch.device("meta"), torch.bfloat16))
    monkeypatch.setattr(opening, "Gaussian", lambda *_, **__: None)  # there are no random numbers on this device
    monkeypatch.setattr(
        quantise, "quantise", lambda given, device: asked.append((given.device.type, device.type)) or 1 / 0
    )
    config = Config(model="wan21-tiny", width=32, height=32, weights_dtype="float8")
    with pytest.raises(ZeroDivisionError):
        opening.opened(config, say=lambda _: None, defer_prompts=False, files={"dit": tmp_path / "model.pt"})
    assert asked == [("cpu", "meta")]
