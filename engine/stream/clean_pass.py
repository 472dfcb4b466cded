"""The clean pass of a chunk, by itself or in one forward with the next chunk's first step (`Schedule.clean_pass`).

When a chunk is finished, one more forward over its clean latents, at timestep 0, overwrites its keys and values, so
that later chunks attend to a history without noise. What it predicts is not used. It is due until the next chunk comes,
so that it delays no picture. Then it can share a forward with that chunk's first step: its row goes through each block
first, and the new chunk's row attends to the clean keys that it has just left there (`InTurns`). So n steps take n
forwards instead of n + 1, of which the first has two rows. The arithmetic is the same, but weights are read once less.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from engine.network.protocol import InTurns
from engine.stream.kv_cache import KVCache, NewFrames
from engine.stream.state import InFlight, WorkKey


def due_with(flights: Sequence[InFlight], frames: int, fused: bool) -> InFlight | None:
    """The chunk whose clean pass is due and can share a forward with `frames` new latent frames; None if none can.

    Args:
        flights: the stream's chunks in flight: with a clean pass, the one that is due, with a timestep for each frame.
        frames: latent frames of the new chunk. Rows of one forward have the same number.
        fused: whether forwards are shared at all.
    """
    if not fused or not flights or len(flights[0].timesteps) != frames:
        return None
    return flights[0]


def begun(cache: KVCache, key: WorkKey, number_S: Tensor, anchor_S: Tensor) -> KVCache | InTurns:
    """The cache, prepared for a forward.

    Args:
        cache: the stream's cache.
        key: describes the forward.
        number_S: number of each row's first latent frame.
        anchor_S: whether each row's frames become the new sinks.
    """
    if not key.earlier:
        cache.begin(NewFrames(number_S, anchor_S, key.visible, even=key.even, again=key.again), key.frames)
        return cache
    clean = NewFrames(number_S[:1], anchor_S[:1], key.earlier, again=True)
    first = NewFrames(number_S[1:], anchor_S[1:], key.visible)
    return InTurns((cache.turn(clean, key.frames), cache.turn(first, key.frames)))
