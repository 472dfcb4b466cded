"""The choice of attention kernels: the fastest one with a correct result, measured at warm-up only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from engine.network import attention
from engine.network.attention import TORCH, Kernel, attend, measuring
from engine.runtime import graph_capture
from tests.engine.runtime.test_graph_capture import show
from tests.engine.stream.test_stream import SIDE, stream

torch.manual_seed(3)
QUERIES, KEYS = torch.randn(2, 24, 4, 32), torch.randn(2, 600, 4, 32)
VALUES = torch.randn(2, 600, 4, 32)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "decisions", {})


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fake kernels; the names of those that were called, in order."""
    calls: list[str] = []

    def kernel(name: str, work: Kernel) -> Kernel:
        def noted(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            calls.append(name)
            return work(q, k, v, mask)

        return noted

    def slow(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        for _ in range(20):
            attention._by_torch(q, k, v, mask)
        return attention._by_torch(q, k, v, mask)

    def wrong(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return v[:, : q.shape[1]] + 0 * q

    def nothing(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return torch.full_like(q, torch.nan)

    def unable(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        raise RuntimeError("no kernel for this")

    works = {TORCH: slow, "wrong": wrong, "nothing": nothing, "unable": unable, "quick": attention._by_torch}
    monkeypatch.setattr(attention, "kernels", lambda device: {n: kernel(n, w) for n, w in works.items()})
    yield calls


def test_the_fastest_kernel_that_is_right_is_used_from_then_on(called: list[str]) -> None:
    plain = attend(QUERIES, KEYS, VALUES)
    assert not called
    with measuring():
        attend(QUERIES, KEYS, VALUES)
    assert set(called) == {TORCH, "wrong", "nothing", "unable", "quick"}
    (found,) = attention.decisions.values()
    assert found.name == "quick"
    assert set(found.times_ms) == {TORCH, "quick"}
    called.clear()
    torch.testing.assert_close(attend(QUERIES, KEYS, VALUES), plain)
    assert called == ["quick"]


def test_nothing_is_measured_but_at_warm_up_and_only_once(called: list[str]) -> None:
    with measuring():
        attend(QUERIES, KEYS, VALUES)
        called.clear()
        attend(QUERIES, KEYS, VALUES)
        assert called == ["quick"]
    called.clear()
    attend(QUERIES[:, :5], KEYS, VALUES)  # another shape is torch's
    attend(QUERIES, KEYS, VALUES, torch.ones(24, 600, dtype=torch.bool))
    assert called == []
    with pytest.raises(KeyError), measuring():
        raise KeyError
    attend(QUERIES[:, :5], KEYS, VALUES)
    assert called == []


def test_a_gain_within_the_noise_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_s = iter((1.00, 0.98))
    monkeypatch.setattr(attention, "kernels", lambda device: {TORCH: attention._by_torch, "b": attention._by_torch})
    monkeypatch.setattr(attention, "_time_ms", lambda work, device: next(torch_s))
    with measuring():
        attend(QUERIES, KEYS, VALUES)
    (found,) = attention.decisions.values()
    assert found.name == TORCH


@pytest.mark.parametrize("masked", [False, True])
def test_torchs_kernels_give_one_result(masked: bool) -> None:
    mask = torch.rand(24, 600) > 0.3 if masked else None
    by_torch = attend(QUERIES, KEYS, VALUES, mask)
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        torch.testing.assert_close(attention._by_backend(backend, QUERIES, KEYS, VALUES, mask), by_torch)
    assert by_torch.shape == QUERIES.shape


def test_a_whole_stream_is_the_same_with_kernels_that_were_decided_at_warm_up(called: list[str]) -> None:
    plain = show(stream(), 12)
    made = stream()
    with measuring():
        graph_capture.warm_up(made.spec, made, SIDE, SIDE, lambda _: None)
    made.noise.reset()
    called.clear()
    shapes = set(attention.decisions)
    assert len(shapes) > 4
    assert all(decision.name == "quick" for decision in attention.decisions.values())
    for (ticket, clean, pixels), (other, other_clean, other_pixels) in zip(plain, show(made, 12), strict=True):
        assert ticket == other
        torch.testing.assert_close(clean, other_clean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pixels, other_pixels, atol=1e-5, rtol=1e-5)
    assert set(called) == {"quick"}
    assert set(attention.decisions) == shapes
