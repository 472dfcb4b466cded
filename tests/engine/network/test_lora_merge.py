"""LoRAs on faders: one rounding from the original whatever way a fader took, fixed addresses, a few blocks a chunk."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from engine.controls import LORA_SLOTS
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape
from engine.network.lora import target
from engine.network.lora.merge import Derived, LiveMerge
from engine.network.lora.updates import Lora, read
from tests.support.priced_steps import PricedSteps, total

SHAPE = DiTShape(dim=32, heads=2, layers=4, ffn=48, text_dim=8, text_len=4, freq_dim=8)
NOW = float("inf")


def network(dtype: torch.dtype = torch.float32) -> CausalDiT:
    dit = CausalDiT(SHAPE)
    dit.init_weights(torch.Generator().manual_seed(1))
    dit = dit.to(dtype).eval().requires_grad_(False)
    dit.fuse()
    return dit


def parameters(dit: CausalDiT) -> dict[str, Tensor]:
    return dict(dit.named_parameters())


def lora(dit: CausalDiT, seed: int, rank: int = 3, scale: float = 0.05, only: str = "") -> Lora:
    """A LoRA of all linear layers of the blocks, and one bias."""
    generator, file = torch.Generator().manual_seed(seed), {}
    for name, weight in parameters(dit).items():
        if name.endswith(".weight") and weight.dim() == 2 and only in name:
            module = name.removesuffix(".weight")
            file[f"{module}.lora_A.weight"] = torch.randn(rank, weight.shape[1], generator=generator) * scale
            file[f"{module}.lora_B.weight"] = torch.randn(weight.shape[0], rank, generator=generator)
    if not only:
        file["blocks.0.ffn.0.diff_b"] = torch.randn(SHAPE.ffn, generator=generator)
    return read(file, parameters(dit), f"lora {seed}")


def strengths(*given: float) -> tuple[float, ...]:
    return (*given, *(0.0,) * (LORA_SLOTS - len(given)))


def live(dtype: torch.dtype = torch.float32, loras: int = 2) -> tuple[CausalDiT, LiveMerge]:
    dit = network(dtype)
    merge = LiveMerge(parameters(dit))
    for slot in range(loras):
        merge.load(slot, lora(dit, slot))
    return dit, merge


def held(dit: CausalDiT) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in dit.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength_zero_is_the_released_network_to_the_bit(dtype: torch.dtype) -> None:
    released = held(network(dtype))
    dit, merge = live(dtype)
    for way in ((0.0, 0.0), (1.0, -0.5), (0.0, 0.0)):
        merge.set(strengths(*way))
        merge.finish()
        assert same(held(dit), released) is (way == (0.0, 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_thousand_moves_give_the_bits_of_one_merge(dtype: torch.dtype) -> None:
    once, merge = live(dtype)
    merge.set(strengths(0.7, -1.3))
    merge.finish()
    wanted = held(once)
    moved, merge = live(dtype)
    merge._stopwatch = PricedSteps(1 / 2**20, 1.0)
    draw = random.Random(4)
    for _ in range(1000):
        merge.set(strengths(draw.uniform(-2, 2), draw.uniform(-2, 2)))
        merge.advance(0.1)
    merge.set(strengths(0.7, -1.3))
    merge.finish()
    assert same(held(moved), wanted)


def test_a_merge_is_the_dense_sum_and_the_order_of_loras_changes_nothing() -> None:
    dit = network()
    base, first, second = held(dit), lora(dit, 0), lora(dit, 1)
    merge, other = LiveMerge(parameters(dit)), network()
    merge.load(0, first)
    merge.load(1, second)
    merge.set(strengths(1.5, -0.8))
    merge.finish()
    swapped = LiveMerge(parameters(other))
    swapped.load(0, second)
    swapped.load(1, first)
    swapped.set(strengths(-0.8, 1.5))
    swapped.finish()
    for name, update in first.updates.items():
        dense = base[name].double()
        for strength, part in ((1.5, update), (-0.8, second.updates[name])):
            if part.down is not None and part.up is not None:
                dense = dense + strength * (part.up.double() @ part.down.double())
            if part.dense is not None:
                dense = dense + strength * part.dense.double()
        torch.testing.assert_close(parameters(dit)[name].double(), dense, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(parameters(dit)[name], parameters(other)[name], atol=2e-6, rtol=1e-5)


def test_every_weight_stays_where_it_is_and_the_fused_ones_stay_views() -> None:
    dit, merge = live()
    addresses = {name: tensor.data_ptr() for name, tensor in parameters(dit).items()}
    fused = [block.self_attn.qkv for block in dit.blocks]
    merge.set(strengths(1.0, 1.0))
    merge.finish()
    assert addresses == {name: tensor.data_ptr() for name, tensor in parameters(dit).items()}
    for block, qkv in zip(dit.blocks, fused, strict=True):
        assert block.self_attn.qkv is qkv
        parts = torch.cat([getattr(block.self_attn, name).weight for name in "qkv"])
        assert torch.equal(qkv.weight, parts), "the matmul reads the merged weights"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows, so that a block takes several steps."""
    monkeypatch.setattr(target, "PART_BYTES", 2048)


def priced() -> tuple[CausalDiT, LiveMerge, PricedSteps]:
    """A merge of which a full part takes a second."""
    dit = network()
    stopwatch = PricedSteps(1 / 2048 / (2 + 3 * target.RANK_WORK), 1.0)
    merge = LiveMerge(parameters(dit), stopwatch=stopwatch)
    merge.load(0, lora(dit, 0, only="blocks."))
    return dit, merge, stopwatch


def at_once(*given: float) -> dict[str, Tensor]:
    dit, merge, _ = priced()
    merge.set(strengths(*given))
    merge.finish()
    return held(dit)


def test_a_few_steps_a_chunk_and_the_newest_strengths_win(small: None) -> None:
    dit, merge, stopwatch = priced()
    merge.set(strengths(1.0))
    count, chunks = merge.due, 0
    assert count > 4 * SHAPE.layers
    while merge.due:
        merge.advance(3.0)
        chunks += 1
        assert (2.0 if merge.due else 0.0) < total(stopwatch.bill()) <= 3.0
    assert chunks > 10
    assert same(held(dit), at_once(1.0))
    merge.set(strengths(0.2))
    merge.advance(3.0 * chunks / 2)
    merge.set(strengths(0.9))  # half of the weights have 0.2, which nobody wants any more
    stopwatch.take()
    while merge.due:
        merge.advance(3.0)
    assert len(stopwatch.take()) == count, "each is written once"
    assert same(held(dit), at_once(0.9))


def test_a_fader_that_never_rests_reaches_every_weight(small: None) -> None:
    _, merge, stopwatch = priced()
    count = len(merge._steps)
    for n in range(2 * count):
        merge.set(strengths(n / 100 + 0.1))
        merge.advance(1.0)
    ran = stopwatch.take()
    assert len(ran) >= 2 * count
    assert set(map(id, ran[:count])) == set(map(id, ran[count : 2 * count])) == set(map(id, merge._steps))


def test_a_step_that_takes_longer_than_the_budget_waits_until_it_has_been_saved(small: None) -> None:
    dit, merge, stopwatch = priced()
    merge.set(strengths(1.0))
    merge.advance(0.0)
    assert not stopwatch.ran, "no time, no work"
    done, needed = [], 0.0
    while merge.due:
        merge.advance(0.4)
        bill = stopwatch.bill()
        done.append(len(bill))
        needed += total(bill)
    assert set(done) == {0, 1} and done[:6] == [0, 0, 1, 0, 0, 1]
    assert len(done) >= needed / 0.4
    assert same(held(dit), at_once(1.0))


@pytest.mark.parametrize("size", [600, 2048, 10**9])
def test_parts_of_any_size_are_the_same_merge(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = at_once(0.7)
    monkeypatch.setattr(target, "PART_BYTES", size)
    found = at_once(0.7)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-6, rtol=1e-5)


def test_a_fader_touches_only_what_its_lora_changes(small: None) -> None:
    dit, _, stopwatch = priced()
    reads: list[int] = []
    merge = LiveMerge(parameters(dit), Derived(range(SHAPE.layers), reads.append, lambda: None), stopwatch)
    merge.load(0, lora(dit, 0, only="blocks.1.ffn"))
    merge.load(1, lora(dit, 1, only="blocks.2.cross_attn"))
    merge.set(strengths(0.5, 0.5))
    merge.finish()
    assert reads == [2]
    stopwatch.take()
    merge.set(strengths(0.8, 0.5))
    merge.finish()
    ran = stopwatch.take()
    assert ran and all(step in merge._merges[1] for step in ran) and reads == [2]


def test_only_what_a_lora_changes_keeps_its_original() -> None:
    dit, merge = live(loras=0)
    assert merge.kept_bytes == 0 and merge.due == 0
    merge.load(0, lora(dit, 0, only="blocks.1.ffn"))
    assert merge.kept_bytes == 2 * SHAPE.dim * SHAPE.ffn * 4
    merge.set(strengths(1.0))
    assert merge.due == 1
    merge.finish()
    merge.set(strengths(1.0, 0.5))
    assert merge.due == 0, "the fader of an empty slot moves nothing"


def test_a_lora_that_leaves_takes_its_update_with_it() -> None:
    released = held(network())
    dit, merge = live()
    merge.set(strengths(1.0, 1.0))
    merge.finish()
    merge.load(0, None)
    merge.load(1, None)
    merge.finish()
    assert same(held(dit), released)
    merge.load(3, lora(dit, 0))
    merge.set(strengths(0, 0, 0, 1.0))
    merge.finish()
    fresh, other = live(loras=1)
    other.set(strengths(1.0))
    other.finish()
    assert same(held(dit), held(fresh))


@pytest.mark.parametrize(
    ("only", "text", "all_text", "time"),
    [
        ("blocks.2.cross_attn.k", {2}, False, False),
        ("blocks.1.cross_attn.v", {1}, False, False),
        ("text_embedding", set(), True, False),
        ("time_projection", set(), False, True),
        ("self_attn", set(), False, False),
        ("ffn", set(), False, False),
    ],
)
def test_what_depends_on_changed_weights_is_computed_again(
    only: str, text: set[int], all_text: bool, time: bool
) -> None:
    dit, merge = live(loras=0)
    calls: list[int] = []
    merge = LiveMerge(parameters(dit), Derived(range(SHAPE.layers), calls.append, lambda: calls.append(-1)))
    merge.load(0, lora(dit, 0, only=only))
    merge.finish()
    assert not calls, "at strength 0 nothing changes"
    merge.set(strengths(1.0))
    merge.finish()
    assert calls == [*range(SHAPE.layers)] * all_text + sorted(text) + [-1] * time, "each once"


@pytest.mark.parametrize("folded", [False, True])
def test_the_output_layer_counts_only_where_it_is_folded_into_the_prompt(folded: bool) -> None:
    dit, calls = network(), list[int]()
    merge = LiveMerge(parameters(dit), Derived(range(SHAPE.layers), calls.append, lambda: None, folded))
    merge.load(0, lora(dit, 0, only="blocks.3.cross_attn.o"))
    merge.set(strengths(1.0))
    merge.finish()
    assert calls == [3] * folded
