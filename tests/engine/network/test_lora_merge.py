"""LoRAs on faders: one rounding from the original whatever way a fader took, fixed addresses, a few blocks a chunk."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from engine.controls import LORA_SLOTS
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape
from engine.network.lora.merge import LiveMerge
from engine.network.lora.stopwatch import HostStopwatch
from engine.network.lora.updates import Lora, read

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
    draw = random.Random(4)
    for _ in range(1000):
        merge.set(strengths(draw.uniform(-2, 2), draw.uniform(-2, 2)))
        merge.advance(0.0)
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


class Costed(HostStopwatch):
    """A stopwatch for which a unit takes one second, whatever its size."""

    def __init__(self) -> None:
        self.time = 0.0
        super().__init__(self._tick)

    def _tick(self) -> float:
        self.time += 0.5
        return self.time

    def expected(self, size: int) -> float | None:
        return 0.5


def test_a_few_blocks_a_chunk_and_the_newest_strengths_win() -> None:
    dit, merge = live(loras=0)
    merge = LiveMerge(parameters(dit), Costed())
    merge.load(0, lora(dit, 0, only="blocks."))
    merge.set(strengths(1.0))
    chunks = 0
    while merge.due:
        merge.advance(1.0)  # two units of half a second
        chunks += 1
    assert chunks == SHAPE.layers // 2
    once = network()
    at_once = LiveMerge(parameters(once))
    at_once.load(0, lora(once, 0, only="blocks."))
    at_once.set(strengths(1.0))
    at_once.finish()
    assert same(held(dit), held(once))
    merge.set(strengths(0.2))
    merge.advance(1.0)
    merge.set(strengths(0.9))  # half of the blocks have 0.2, which nobody wants any more
    while merge.due:
        merge.advance(1.0)
    at_once.set(strengths(0.9))
    at_once.finish()
    assert same(held(dit), held(once))


def test_a_fader_that_never_rests_reaches_every_block() -> None:
    dit, _ = live(loras=0)
    merge = LiveMerge(parameters(dit), Costed())
    merge.load(0, lora(dit, 0, only="blocks."))
    built: list[set[int]] = []
    for n in range(2 * SHAPE.layers):
        merge.set(strengths(n / 10 + 0.1))
        before = {number: unit.turn for number, unit in merge.units.items()}
        merge.advance(0.5)
        built.append({number for number, unit in merge.units.items() if unit.turn != before[number]})
    assert all(len(units) == 1 for units in built), "no chunk builds more than its time allows"
    assert set().union(*built[: SHAPE.layers]) == set(range(SHAPE.layers))
    assert set().union(*built[SHAPE.layers :]) == set(range(SHAPE.layers))


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
def test_what_has_to_be_computed_again_is_told(only: str, text: set[int], all_text: bool, time: bool) -> None:
    dit, merge = live(loras=0)
    merge.load(0, lora(dit, 0, only=only))
    merge.set(strengths(1.0))
    changed = merge.finish()
    assert (changed.text, changed.all_text, changed.time) == (text, all_text, time)
