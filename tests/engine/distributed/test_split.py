"""The block split: the published rule against worked examples, our own against brute force on small problems."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.distributed.split import even_split, exchange_order, moves, place, rebalance, worthwhile


def test_even_split_gives_the_remainder_to_the_first_ranks():
    assert even_split(30, 4) == ((0, 8), (8, 16), (16, 23), (23, 30))
    with pytest.raises(ValueError, match="every rank needs one"):
        even_split(3, 4)


@pytest.mark.parametrize(
    "current, rank_s, dit_s, expected",
    [
        ((15, 15), (0.0736, 0.2243), (0.0651, 0.122), (27, 3)),
        ((10, 10, 10), (0.2903, 0.0332, 0.1668), (0.1992, 0.0332, 0.0735), (1, 21, 8)),
        ((10, 10, 10), (0.1304, 0.1625, 0.1353), (0.107, 0.1625, 0.1312), (11, 9, 10)),
        ((2, 1, 1, 1), (0.0595, 0.0564, 0.0511, 0.2539), (0.0393, 0.0564, 0.0511, 0.142), (2, 1, 1, 1)),
    ],
)
def test_published_rule(current, rank_s, dit_s, expected):
    edges = [sum(current[:i]) for i in range(len(current) + 1)]
    split = rebalance(tuple(pairwise(edges)), rank_s, dit_s)
    assert tuple(end - start for start, end in split) == expected


def bottleneck(blocks, block_s, encode_s, decode_s):
    """Least time of the slowest rank over every split and placement."""
    world = len(block_s)
    best = float("inf")
    for cuts in combinations(range(1, blocks), world - 1):
        edges = (0, *cuts, blocks)
        for e in range(world):
            for d in range(world):
                times = [(edges[r + 1] - edges[r]) * block_s[r] for r in range(world)]
                times[e] += encode_s[e]
                times[d] += decode_s[d]
                best = min(best, max(times))
    return best


cost = st.floats(0.1, 10)


@given(
    st.integers(1, 3).flatmap(lambda w: st.tuples(*(st.lists(cost, min_size=w, max_size=w),) * 3)),
    st.integers(3, 8),
)
def test_place_is_optimal(costs, blocks):
    block_s, encode_s, decode_s = costs
    placed = place(blocks, block_s, encode_s, decode_s)
    assert placed.period_s == pytest.approx(bottleneck(blocks, block_s, encode_s, decode_s))
    assert placed.split[0][0] == 0 and placed.split[-1][1] == blocks


def test_unequal_gpus_share_by_their_speed():
    placed = place(30, [1.0, 2.0, 4.0], [3.0, 6.0, 12.0], [5.0, 10.0, 20.0])
    assert max(placed.rank_s) / min(placed.rank_s) < 1.25
    assert placed.encode_rank == 0


def test_memory_limits_hold():
    placed = place(10, [1.0, 5.0], [0.0, 0.0], [0.0, 0.0], max_blocks=[4, 10])
    assert placed.split == ((0, 4), (4, 10))
    with pytest.raises(ValueError, match="cannot hold"):
        place(10, [1.0, 1.0], [0.0, 0.0], [0.0, 0.0], max_blocks=[4, 4])


def test_moves_name_every_block_once():
    found = moves(((0, 10), (10, 20), (20, 30)), ((0, 4), (4, 22), (22, 30)))
    assert [(m.start, m.end, m.source, m.target) for m in found] == [(4, 10, 0, 1), (20, 22, 2, 1)]
    assert moves(((0, 5),), ((0, 5),)) == ()


@given(st.sets(st.integers(1, 11), min_size=3, max_size=3), st.sets(st.integers(1, 11), min_size=3, max_size=3))
def test_a_rank_gives_blocks_before_it_takes_others(old_cuts, new_cuts):
    old, new = (tuple(pairwise((0, *sorted(cuts), 12))) for cuts in (old_cuts, new_cuts))
    order = exchange_order(old, new)
    assert sorted(order, key=repr) == sorted(moves(old, new), key=repr)
    for rank in range(4):
        for forward in (True, False):
            way = [m for m in order if (m.source < m.target) == forward]
            gives = [i for i, m in enumerate(way) if m.source == rank]
            takes = [i for i, m in enumerate(way) if m.target == rank]
            assert not gives or not takes or max(gives) < min(takes)


def test_small_gains_do_not_move_blocks():
    assert worthwhile(1.0, 0.9) and not worthwhile(1.0, 0.97)
