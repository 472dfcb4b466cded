"""Eight LoRAs whose faders never rest: all that they cost is within a share of the chunk's time, and memory is flat."""

from __future__ import annotations

import gc
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.controls import LORA_SLOTS, Controls
from engine.models.lora_slots import RECENT, SHARE
from engine.network.lora import target
from engine.network.lora.merge import LiveMerge
from engine.network.lora.steps import Merge, Refresh, Step
from engine.runtime.metrics import StageTimers
from engine.session import Session
from engine.stream.stream import LocalStream
from tests.engine.test_loras import CONTROLS, NETWORK, PERIOD_NS, faders, lora, opened, play
from tests.support.priced_steps import PricedSteps, total

CHUNK_S = 0.05
"""How long a chunk takes in these tests, by what its timers say."""

WORK_S = 0.1e-3 / 2**16
"""What a unit of a merge's work costs here: 0.3 ms for a square matrix of the tiny network with eight LoRAs."""

REFRESH_S = 0.4e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eight")
    for number in range(LORA_SLOTS):
        save_file(lora(number), path / f"{number}.safetensors")
    torch.save(NETWORK, path / "base.pt")
    return path


@pytest.fixture
def chunk_ms(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the timers say of a chunk; small parts, so that there are many steps."""
    stages = {"encode": 10.0, "dit": CHUNK_S * 1e3 - 15.0, "decode": 5.0}
    monkeypatch.setattr(StageTimers, "read", lambda self: dict(stages))
    monkeypatch.setattr(target, "PART_BYTES", 2**16)
    return stages


def swept(chunk: int) -> Controls:
    """The faders at a chunk: every one moves, at 60 Hz several times within a chunk, of which the newest counts."""
    seconds = chunk * 4 * PERIOD_NS / 1e9
    return faders(**{f"lora_{n}": 2 * math.sin(2 * math.pi * (0.1 * n * seconds + n / 8)) for n in range(1, 9)})


def tensor_bytes() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in gc.get_objects()
        if type(tensor) in (torch.Tensor, torch.nn.Parameter) and not tensor.is_meta
    }
    return sum(storages.values())


def local(session: Session) -> LocalStream:
    stream = session._stream
    assert isinstance(stream, LocalStream)
    return stream


def priced(session: Session) -> tuple[LiveMerge, PricedSteps]:
    stopwatch = PricedSteps(WORK_S, REFRESH_S)
    local(session).loras.merge._stopwatch = stopwatch
    return local(session).loras.merge, stopwatch


def moves(session: Session, stopwatch: PricedSteps, chunks: range) -> list[list[tuple[Step, float]]]:
    """The bill of each of these chunks, whose faders move."""
    stopwatch.take()
    bills = []
    for chunk in chunks:
        play(session, swept(chunk), range(5 + 4 * chunk, 9 + 4 * chunk))
        bills.append(stopwatch.bill())
    return bills


def test_all_that_faders_cost_is_within_a_share_of_the_chunks_time(folder: Path, chunk_ms: dict[str, float]) -> None:
    names = [str(number) for number in range(LORA_SLOTS)]
    with opened(folder, *names) as session:
        merge, stopwatch = priced(session)
        play(session, CONTROLS, range(5))
        stream = local(session)
        tensors = {**dict(stream.state.tensors()), **dict(stream.network.named_parameters())}  # type: ignore[attr-defined]
        assert all(moves(session, stopwatch, range(12))), "from the second chunk on"
        places = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        layers, budget_s = len(stream.network.blocks), SHARE * CHUNK_S
        memory, bills = 0, []
        for first in range(12, 72, 10):
            bills += moves(session, stopwatch, range(first, first + 10))
            memory = memory or tensor_bytes()
        spent = [total(bill) for bill in bills]
        assert max(spent) <= budget_s
        assert min(spent) > budget_s - REFRESH_S, "and it is used, up to the step that comes next"
        ran = [step for bill in bills for step, _ in bill]
        assert sum(isinstance(step, Refresh) for step in ran) > layers, "the prompt is read in every block"
        assert {len(set(map(id, merges))) for merges in between(ran)} == {len(merge._merges[0])}, "when it is whole"
        assert all(len(bill) < len(merge._merges[0]) for bill in bills), "and a block takes several chunks"
        assert tensor_bytes() == memory
        assert places == {name: tensor.data_ptr() for name, tensor in tensors.items()}


def between(ran: list[Step]) -> list[list[Step]]:
    """The merges between two readings of the prompt."""
    found: list[list[Step]] = [[]]
    for step in ran:
        if isinstance(step, Merge):
            found[-1].append(step)
        else:
            found.append([])
    return found[1:-1]


def test_a_chunk_that_takes_longer_gives_more_time_and_a_busy_moment_does_not(
    folder: Path, chunk_ms: dict[str, float]
) -> None:
    with opened(folder, "0") as session:
        _, stopwatch = priced(session)
        play(session, CONTROLS, range(5))
        moves(session, stopwatch, range(4))
        chunk_ms["dit"] *= 3
        slow_s = sum(chunk_ms.values()) / 1e3
        busy = moves(session, stopwatch, range(4, 8))
        assert max(map(total, busy)) <= SHARE * CHUNK_S
        moves(session, stopwatch, range(8, 4 + RECENT + 1))
        later = [total(bill) for bill in moves(session, stopwatch, range(20, 26))]
        assert SHARE * CHUNK_S < max(later) <= SHARE * slow_s


def test_while_the_faders_are_still_nothing_is_merged(folder: Path, chunk_ms: dict[str, float]) -> None:
    with opened(folder, *(str(number) for number in range(LORA_SLOTS))) as session:
        merge, stopwatch = priced(session)
        play(session, swept(3), range(5))
        assert stopwatch.take() and not merge.due, "before the first chunk the strengths are reached at once"
        play(session, swept(3), range(5, 21))
        assert not stopwatch.take()


def test_without_a_lora_no_weight_is_copied(folder: Path, chunk_ms: dict[str, float]) -> None:
    with opened(folder) as session:
        merge, stopwatch = priced(session)
        play(session, swept(1), range(13))
        assert (merge.kept_bytes, merge.due, stopwatch.ran) == (0, 0, [])
