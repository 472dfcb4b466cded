"""The eviction queues of the KV cache as tensors: what changes them runs on the device, without the host.

An entry is the END of a block of slots (see `kv_cache`); -1, after the last entry, is none.

Shape letters: S rows, Q places in a queue.
"""

from __future__ import annotations

import torch
from torch import Tensor


def push_front(queue_SQ: Tensor, entry_S: Tensor, mask_S: Tensor) -> Tensor:
    """Put an entry at the head of the queues of the rows in the mask."""
    pushed = torch.cat((entry_S[:, None], queue_SQ[:, :-1]), dim=1)
    return torch.where(mask_S[:, None], pushed, queue_SQ)


def push_back(queue_SQ: Tensor, entry_S: Tensor, mask_S: Tensor) -> Tensor:
    """Append an entry to the queues of the rows in the mask."""
    length_S1 = (queue_SQ >= 0).sum(dim=1, keepdim=True)
    kept_S1 = queue_SQ.gather(1, length_S1)
    return queue_SQ.scatter(1, length_S1, torch.where(mask_S[:, None], entry_S[:, None], kept_S1))


def last(queue_SQ: Tensor) -> Tensor:
    """The last entry of each queue, -1 if it is empty."""
    length_S1 = (queue_SQ >= 0).sum(dim=1, keepdim=True)
    return queue_SQ.gather(1, (length_S1 - 1).clamp(min=0))[:, 0]


def anchor(queue_SQ: Tensor, sinks: int, block: int, anchor_S: Tensor) -> Tensor:
    """Move all sinks to the heads of the queues of the anchoring rows, so that the next frames replace them."""
    if sinks < block:
        return queue_SQ
    ring_first = (queue_SQ <= sinks).to(torch.int8).argsort(dim=1, stable=True)
    ring = queue_SQ.gather(1, ring_first)
    ring = ring.masked_fill(ring <= sinks, -1)
    ends = torch.arange(block, sinks + 1, block, device=queue_SQ.device).expand(queue_SQ.shape[0], -1)
    anchored = torch.cat((ends, ring[:, : queue_SQ.shape[1] - ends.shape[1]]), dim=1)
    return torch.where(anchor_S[:, None], anchored, queue_SQ)
