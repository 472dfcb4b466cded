"""The memory that a session reports, and what it says where a full GPU spills into system memory (Windows)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from engine.config import Config
from engine.runtime import gpu_memory
from engine.runtime.gpu_memory import CHUNKS_BETWEEN, SpillWatch, forbid_spilling, memory_gib
from engine.session import Session
from tests.engine.test_session import play
from tests.support.platforms import constants_on

GIB = 2**30
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@dataclass
class Gpu:
    """A stand-in for a GPU of 8 GiB on Windows."""

    free: float = 6 * GIB
    reserved: float = 0.0
    allowed: float = 1.0

    def allow(self, share: float, device: torch.device) -> None:
        self.allowed = share


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu()
    monkeypatch.setattr(gpu_memory, "SPILLS", True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (found.free, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: found.reserved)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", found.allow)
    return found


def test_memory_in_use_counts_the_pools_of_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 11 * GIB)  # living tensors outside the pools
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 15 * GIB)
    assert memory_gib(CUDA) == 15.0
    assert memory_gib(CPU) == 0.0


def test_torch_may_reserve_what_is_free_and_what_it_has(gpu: Gpu) -> None:
    forbid_spilling(CUDA)
    assert gpu.allowed == 6 / 8
    gpu.free, gpu.reserved = 4 * GIB, 2 * GIB
    forbid_spilling(CUDA)
    assert gpu.allowed == 6 / 8


def test_memory_spills_on_windows_only() -> None:
    assert constants_on("win32", gpu_memory)["SPILLS"] is True
    assert constants_on("linux", gpu_memory)["SPILLS"] is False


def test_where_nothing_spills_nothing_is_limited_or_watched(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.free = 0
    forbid_spilling(CPU)
    monkeypatch.setattr(gpu_memory, "SPILLS", False)
    forbid_spilling(CUDA)
    assert gpu.allowed == 1.0
    watch = SpillWatch()
    assert not any(watch.trouble(CUDA) for _ in range(2 * CHUNKS_BETWEEN))


def said(watch: SpillWatch) -> list[str]:
    return [text for _ in range(2 * CHUNKS_BETWEEN) if (text := watch.trouble(CUDA))]


@pytest.mark.parametrize(("free", "reserved"), [(0, 5 * GIB), (4 * GIB, 5 * GIB)])
def test_a_full_gpu_is_said_once_each_time(free: int, reserved: int, gpu: Gpu) -> None:
    watch = SpillWatch()
    assert said(watch) == []
    for _ in range(2):
        gpu.free, gpu.reserved = free, reserved
        assert [f"{free / GIB:.1f} of 8.0 GiB are free" in text for text in said(watch)] == [True]
        assert said(watch) == []
        gpu.free, gpu.reserved = 2 * GIB, 5 * GIB
        assert said(watch) == []


def test_a_session_tells_it_with_its_figures() -> None:
    with Session.open(Config(model="wan21-tiny", width=32, height=32, device="cpu")) as session:
        session._spills.trouble = lambda device: f"{device} is full"  # type: ignore[method-assign]
        play(session, range(9))
        assert session.health.trouble == "cpu is full"
