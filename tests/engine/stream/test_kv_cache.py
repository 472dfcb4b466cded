"""The rolling KV cache: which frame is in which slot, under every rule."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ModelError
from engine.models.spec import CacheShape
from engine.stream.kv_cache import KVCache, NewFrames, Rule


def cache(shape: CacheShape, rule: Rule, block: int = 1, rows: int = 1, first: int = 2) -> KVCache:
    sizes = {"block": block, "first": first, "layers": 1, "rows": rows, "tokens": 2, "heads": 1, "width": 4}
    return KVCache(shape, rule, **sizes, device="cpu", dtype=torch.float32)


def put(held: KVCache, number: int, frames: int, value: float, anchor: bool = False, again: bool = False) -> None:
    """Store frames whose keys and values consist of the number `value`."""
    visible = min(number + frames, held.shape.slots)
    held.begin(NewFrames(torch.tensor([number]), torch.tensor([anchor]), visible, again=again), frames)
    k = torch.full((1, frames * held.tokens, 1, 4), value)
    keys, _, mask = held.append(0, k, k)
    assert keys.shape[1] == visible * held.tokens
    assert mask is None


def frames_in(held: KVCache) -> list[int]:
    return held.k_SRfJK[0][0, :, 0, 0, 0].int().tolist()


def roll(held: KVCache, first: int, frames: int) -> list[list[int]]:
    """Number the frames from 1 and return the contents of the slots after each frame."""
    put(held, 0, first, 1)
    seen = []
    for number in range(first, frames, held.block):
        put(held, number, held.block, number + 1)
        seen.append(frames_in(held))
    return seen


def test_the_reference_keeps_three_and_rolls_three() -> None:
    seen = roll(cache(CacheShape(6, 3), Rule.REFERENCE), 2, 12)
    assert seen[-1][:3] == [1, 1, 3]
    assert sorted(seen[-1][3:]) == [10, 11, 12]


def test_the_reference_keeps_the_slot_after_the_first_block_even_beyond_its_sinks() -> None:
    seen = roll(cache(CacheShape(5, 2), Rule.REFERENCE), 2, 12)
    assert seen[-1][:3] == [1, 1, 3]


@pytest.mark.parametrize(("slots", "sinks"), [(5, 0), (5, 4), (5, 2), (6, 3), (7, 1), (8, 5), (12, 11), (21, 0)])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_the_reference_rolls_as_the_release_does_in_every_window(slots: int, sinks: int, first: int) -> None:
    """Against the release's rule written out in Python, for windows other than its own."""
    held = cache(CacheShape(slots, sinks), Rule.REFERENCE, first=first)
    wanted, queue = [0] * slots, []
    for number in range(0, 40) if first == 1 else (0, *range(first, 40)):
        frames = first if number == 0 else 1
        end = number + frames
        if sinks < end + frames <= slots and queue[-1:] != [end + frames]:
            queue.append(end + frames)
        if end > slots:
            end = queue.pop(0)
            if end > sinks:
                queue.append(end)
        wanted[end - frames : end] = [number + 1] * frames
        put(held, number, frames, number + 1)
        assert frames_in(held) == wanted


def test_a_window_that_is_not_a_whole_number_of_blocks_is_refused() -> None:
    for shape in (CacheShape(20, 0), CacheShape(15, 2)):
        with pytest.raises(ModelError, match="whole number of blocks of 3"):
            cache(shape, Rule.HONEST, block=3, first=3)


@pytest.mark.parametrize(("slots", "sinks"), [(5, 2), (6, 3), (3, 0), (4, 1), (6, 5)])
def test_honest_sinks_stay_and_all_others_roll(slots: int, sinks: int) -> None:
    seen = roll(cache(CacheShape(slots, sinks), Rule.HONEST), 1, 20)
    assert seen[-1][:sinks] == list(range(1, sinks + 1))
    for count, kept in enumerate(seen, start=2):
        if count >= slots:
            assert sorted(kept[sinks:]) == list(range(count + 1 - (slots - sinks), count + 1)), "the oldest goes first"


def test_blocks_roll_as_a_whole() -> None:
    held = cache(CacheShape(6, 3), Rule.HONEST, block=3)
    assert roll(held, 3, 12)[-1] == [1, 1, 1, 10, 10, 10]


@pytest.mark.parametrize("rule", [Rule.REFERENCE, Rule.HONEST])
def test_an_anchor_gives_the_sinks_to_the_next_frames(rule: Rule) -> None:
    held = cache(CacheShape(6, 3), rule)
    roll(held, 2, 12)
    ring = frames_in(held)[3:]
    for number in range(12, 15):
        put(held, number, 1, number + 1, anchor=number == 12)
    assert frames_in(held) == [13, 14, 15, *ring]
    put(held, 15, 1, 16)
    assert frames_in(held)[:3] == [13, 14, 15], "they are sinks again"


def test_further_steps_write_the_same_slot() -> None:
    held = cache(CacheShape(6, 3), Rule.REFERENCE)
    roll(held, 2, 12)
    put(held, 12, 1, 13)
    before = frames_in(held)
    put(held, 12, 1, 14, again=True)
    assert [14 if frame == 13 else frame for frame in before] == frames_in(held)


@pytest.mark.parametrize("rule", [Rule.REFERENCE, Rule.HONEST, Rule.ADAPTIVE])
def test_adaptive_sinks_give_way_to_what_is_unlike_them(rule: Rule) -> None:
    held = cache(CacheShape(6, 2, threshold=0.5), rule)
    roll(held, 2, 10)
    if rule is not Rule.REFERENCE:
        assert frames_in(held)[:2] == [1, 1], "frames that are alike renew nothing"
    put(held, 10, 1, -11.0)
    assert -11 in frames_in(held)[:2]


def test_rows_that_have_written_less_are_masked() -> None:
    held = cache(CacheShape(6, 3), Rule.HONEST, rows=2)
    held.begin(NewFrames(torch.tensor([4, 2]), torch.tensor([False, False]), 5, even=False), 1)
    k = torch.ones(2, 2, 1, 4)
    _, _, mask = held.append(0, k, k)
    assert mask is not None
    assert mask[:, 0, 0].sum(dim=1).tolist() == [10, 6]


def test_a_cache_without_room_to_roll_is_refused() -> None:
    with pytest.raises(ModelError, match="no room"):
        cache(CacheShape(3, 3), Rule.HONEST)
    with pytest.raises(ModelError, match="no room"):
        cache(CacheShape(3, 0), Rule.REFERENCE)


def test_the_numbers_of_a_head_lie_side_by_side_also_after_a_change_of_layers() -> None:
    held = KVCache(
        CacheShape(6, 3),
        Rule.HONEST,
        block=1,
        layers=2,
        rows=2,
        tokens=2,
        heads=3,
        width=4,
        device="cpu",
        dtype=torch.float32,
    )
    for again in (False, True):
        new_SLHK = torch.randn(2, 2, 3, 4)
        held.begin(NewFrames(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool), 1, again=again), 1)
        k_SLHK, v_SLHK, _ = held.append(1, new_SLHK, -new_SLHK)
        assert torch.equal(k_SLHK, new_SLHK)
        assert torch.equal(v_SLHK, -new_SLHK)
        assert k_SLHK.transpose(1, 2)[0, 1].is_contiguous()
        held.load_layers([held.layer(index) for index in range(2)])
    assert torch.equal(held.k_SRfJK[1][:, 0], new_SLHK)
