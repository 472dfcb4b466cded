"""Which transformer blocks run on which GPU, and where frames are encoded and decoded. Pure: no torch, no clock.

A split is a tuple of half-open intervals (start, end), one a rank in pipeline order, that cover all blocks.
`rebalance` is the published rule (StreamDiffusionV2, section 4.3, "block scheduler": every rank moves toward the
mean rank time); `place` is our own: the smallest possible bottleneck for any mix of GPUs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Split = tuple[tuple[int, int], ...]


def even_split(blocks: int, world: int) -> Split:
    """Divide `blocks` evenly over `world` ranks; the first ranks take the remainder.

    Raises:
        ValueError: if there are more ranks than blocks, or no rank.
    """
    if not 1 <= world <= blocks:
        raise ValueError(f"{blocks} blocks cannot be divided over {world} ranks: every rank needs one")
    share, rest = divmod(blocks, world)
    return _intervals([share + (rank < rest) for rank in range(world)])


def rebalance(current: Sequence[tuple[int, int]], rank_s: Sequence[float], dit_s: Sequence[float]) -> Split:
    """The published block scheduler: one correction from measured times.

    blocks_i += (mean(rank_s) - rank_s_i) / (sum(dit_s) / blocks), rounded, at least one; then the sum is repaired
    one block at a time, taking from the largest ranks (later ranks first) or giving to the smallest.

    Args:
        current: the split in force.
        rank_s: seconds of each rank for a whole call, encode and decode included.
        dit_s: seconds of each rank inside its transformer blocks.
    """
    world, blocks = len(current), current[-1][1]
    if not len(rank_s) == len(dit_s) == world:
        raise ValueError(f"{world} ranks need {world} times, got {len(rank_s)} and {len(dit_s)}")
    per_block = sum(dit_s) / blocks
    mean = sum(rank_s) / world
    counts = [
        max(1, round(end - start + (mean - seconds) / per_block))
        for (start, end), seconds in zip(current, rank_s, strict=True)
    ]
    excess = sum(counts) - blocks
    order = sorted(range(world), key=lambda rank: (counts[rank], rank), reverse=excess > 0)
    turn = 0
    while excess:
        rank = order[turn % world]
        if excess < 0:
            counts[rank] += 1
            excess += 1
        elif counts[rank] > 1:
            counts[rank] -= 1
            excess -= 1
        turn += 1
    return _intervals(counts)


@dataclass(frozen=True, slots=True)
class Placement:
    """Result of `place`: the split, the ranks that encode and decode, and each rank's seconds per call."""

    split: Split
    encode_rank: int
    decode_rank: int
    rank_s: tuple[float, ...]

    @property
    def period_s(self) -> float:
        """Seconds between two results: the slowest rank's time."""
        return max(self.rank_s)


def place(
    blocks: int,
    block_s: Sequence[float],
    encode_s: Sequence[float],
    decode_s: Sequence[float],
    *,
    most_blocks: Sequence[int] | None = None,
) -> Placement:
    """Find the split, and the ranks that encode and decode, with the smallest slowest rank.

    Encoding may sit on any rank and so may decoding (their results are small: one latent frame); ties go to the
    first rank for encoding and the last for decoding, which saves a transfer.

    Args:
        blocks: transformer blocks in all.
        block_s: seconds of one block on each rank (all rows of the stream batch).
        encode_s, decode_s: seconds of encoding and decoding one chunk on each rank.
        most_blocks: memory limit of each rank in blocks; None for no limit.

    Raises:
        ValueError: if the ranks cannot hold all blocks.
    """
    world = len(block_s)
    limits = list(most_blocks) if most_blocks is not None else [blocks] * world
    if world > blocks or sum(limits) < blocks or min(limits) < 1:
        raise ValueError(f"{world} ranks that hold at most {limits} blocks cannot hold {blocks}, one each at least")
    best: Placement | None = None
    for encode_rank in range(world):
        for decode_rank in range(world - 1, -1, -1):
            fixed = [0.0] * world
            fixed[encode_rank] += encode_s[encode_rank]
            fixed[decode_rank] += decode_s[decode_rank]
            counts = _fill(blocks, block_s, fixed, limits)
            times = tuple(f + n * s for f, n, s in zip(fixed, counts, block_s, strict=True))
            if best is None or max(times) < best.period_s - 1e-12:
                best = Placement(_intervals(counts), encode_rank, decode_rank, times)
    assert best is not None
    return best


def _fill(blocks: int, block_s: Sequence[float], fixed: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Give out blocks one by one to the rank that is then the fastest: minimal bottleneck for linear costs."""
    counts = [1] * len(block_s)
    for _ in range(blocks - len(block_s)):
        open_ranks = [r for r in range(len(counts)) if counts[r] < limits[r]]
        rank = min(open_ranks, key=lambda r: fixed[r] + (counts[r] + 1) * block_s[r])
        counts[rank] += 1
    return counts


@dataclass(frozen=True, slots=True)
class Move:
    """Blocks [start, end) whose weights and caches go from one rank to another."""

    start: int
    end: int
    source: int
    target: int


def moves(old: Split, new: Split) -> tuple[Move, ...]:
    """Which blocks change their rank between two splits of the same blocks, in block order."""
    result = []
    for source, (old_start, old_end) in enumerate(old):
        for target, (new_start, new_end) in enumerate(new):
            start, end = max(old_start, new_start), min(old_end, new_end)
            if source != target and start < end:
                result.append(Move(start, end, source, target))
    return tuple(result)


def worthwhile(current_period_s: float, new_period_s: float, *, gain: float = 0.05) -> bool:
    """Whether a new split is worth moving blocks for: hysteresis against flapping."""
    return new_period_s < current_period_s * (1.0 - gain)


def better_split(
    split: Split,
    dit_s: Sequence[float],
    encode_s: float,
    decode_s: Sequence[float],
    decoder: int,
    period_s: float,
) -> Split | None:
    """The best split by measured times, if it is another one and worth moving blocks for; else None.

    Args:
        split: the one in force.
        dit_s, decode_s: seconds of each rank for its blocks, and for a decode.
        encode_s: seconds of an encode on rank 0, where frames come in.
        decoder: the rank that decodes.
        period_s: seconds of the slowest rank now.
    """
    counts = [end - start for start, end in split]
    best = place(
        sum(counts),
        [max(s / n, 1e-9) for s, n in zip(dit_s, counts, strict=True)],
        [encode_s if rank == 0 else math.inf for rank in range(len(split))],
        [decode_s[rank] if rank == decoder else math.inf for rank in range(len(split))],
    )
    return best.split if best.split != split and worthwhile(period_s, best.period_s) else None


def _intervals(counts: Sequence[int]) -> Split:
    edges = [0]
    for count in counts:
        edges.append(edges[-1] + count)
    return tuple(itertools.pairwise(edges))
