"""The memory that a session reports."""

from __future__ import annotations

import pytest
import torch

from engine.runtime.metrics import memory_gib


def test_memory_in_use_counts_the_pools_of_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 11 * 2**30)  # living tensors outside the pools
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 15 * 2**30)
    assert memory_gib(torch.device("cuda")) == 15.0
    assert memory_gib(torch.device("cpu")) == 0.0
