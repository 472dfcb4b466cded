"""Which transformer blocks run on which GPU, and where frames are encoded and decoded. Pure functions, without torch.

A split is a tuple of half-open intervals (start, end), one per rank in pipeline order, that cover all blocks.
`rebalance` is the published rule (StreamDiffusionV2, arXiv 2511.07399, section 4.3, "block scheduler": every rank moves
toward the mean rank time). `place` is our own: it minimises the time of the slowest rank for any mix of GPUs.
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
        ValueError: if `world` is not within 1 to `blocks`.
    """
    if not 1 <= world <= blocks:
        raise ValueError(f"{blocks} blocks cannot be divided over {world} ranks: every rank needs one")
    share, rest = divmod(blocks, world)
    return _intervals([share + (rank < rest) for rank in range(world)])


def rebalance(current: Sequence[tuple[int, int]], rank_s: Sequence[float], dit_s: Sequence[float]) -> Split:
    """The published block scheduler: one correction of the split from measured times.

    blocks_i += (mean(rank_s) - rank_s_i) / (sum(dit_s) / blocks), rounded, at least one. If the counts then do not add
    up to all blocks, single blocks are taken from the largest ranks (later ranks first) or added to the smallest ones.

    Args:
        current: the current split.
        rank_s: seconds of each rank for a whole call, encode and decode included.
        dit_s: seconds of each rank in its transformer blocks.

    Raises:
        ValueError: if there is not one time per rank.
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
        """Seconds between two results: the time of the slowest rank."""
        return max(self.rank_s)


def place(
    blocks: int,
    block_s: Sequence[float],
    encode_s: Sequence[float],
    decode_s: Sequence[float],
    *,
    max_blocks: Sequence[int] | None = None,
) -> Placement:
    """Find the split, and the ranks that encode and decode, for which the slowest rank takes the least time.

    Any rank may encode and any may decode, since a latent frame is cheap to send. Ties go to the first rank for
    encoding and to the last for decoding, which saves a transfer.

    Args:
        blocks: number of transformer blocks.
        block_s: seconds of one block on each rank, for all rows of the stream batch.
        encode_s, decode_s: seconds of encoding and decoding one chunk on each rank.
        max_blocks: most blocks that fit into each rank's memory; None for no limit.

    Raises:
        ValueError: if the ranks cannot hold all blocks, or a rank would have none.
    """
    world = len(block_s)
    limits = list(max_blocks) if max_blocks is not None else [blocks] * world
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
    """Number of blocks per rank: each further block goes to the rank that finishes first with it.

    For linear costs this minimises the time of the slowest rank.
    """
    counts = [1] * len(block_s)
    for _ in range(blocks - len(block_s)):
        open_ranks = [r for r in range(len(counts)) if counts[r] < limits[r]]
        rank = min(open_ranks, key=lambda r: fixed[r] + (counts[r] + 1) * block_s[r])
        counts[rank] += 1
    return counts


@dataclass(frozen=True, slots=True)
class Move:
    """Blocks [start, end) whose weights and caches move from one rank to another."""

    start: int
    end: int
    source: int
    target: int


def moves(old: Split, new: Split) -> tuple[Move, ...]:
    """The blocks that are on another rank in the new split than in the old one."""
    result = []
    for source, (old_start, old_end) in enumerate(old):
        for target, (new_start, new_end) in enumerate(new):
            start, end = max(old_start, new_start), min(old_end, new_end)
            if source != target and start < end:
                result.append(Move(start, end, source, target))
    return tuple(result)


def exchange_order(old: Split, new: Split) -> tuple[Move, ...]:
    """The moves in the one order in which all ranks make them: a rank gives blocks away before it takes others.

    Blocks that move to later ranks start at the last rank, those that move to earlier ones at the first.
    """
    found = moves(old, new)
    later = sorted((m for m in found if m.source < m.target), key=lambda m: (-m.source, m.start))
    earlier = sorted((m for m in found if m.source > m.target), key=lambda m: (m.source, m.start))
    return (*later, *earlier)


def worthwhile(current_period_s: float, new_period_s: float, *, gain: float = 0.05) -> bool:
    """Whether a new split is faster by more than `gain` (a share); this hysteresis prevents moving back and forth."""
    return new_period_s < current_period_s * (1.0 - gain)


def better_split(
    split: Split,
    dit_s: Sequence[float],
    encode_s: float,
    decode_s: Sequence[float],
    decoder: int,
    period_s: float,
) -> Split | None:
    """The best split by measured times if it differs from the current one and is `worthwhile`; otherwise None.

    Args:
        split: the current split.
        dit_s, decode_s: seconds of each rank for its blocks, and for decoding one chunk.
        encode_s: seconds for encoding one chunk on rank 0, which receives the frames.
        decoder: the rank that decodes.
        period_s: seconds of the slowest rank with the current split.
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
