"""Eight LoRAs whose faders never rest: bounded work a chunk, unchanged addresses, flat memory."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.controls import LORA_SLOTS, Controls
from engine.models.lora_slots import SHARE
from engine.network.lora.merge import LiveMerge
from engine.session import Session
from engine.stream.stream import LocalStream
from tests.engine.test_loras import CONTROLS, NETWORK, PERIOD_NS, faders, lora, opened, play

UNIT_S = 0.0015
"""What the tests let a merge of one block take."""


class Priced:
    """A stopwatch by which every unit takes `UNIT_S`, whatever this machine needs for it."""

    def __init__(self) -> None:
        self.units = 0

    def expected(self, size: int) -> float | None:
        return UNIT_S

    @contextmanager
    def measured(self, size: int) -> Iterator[object]:
        yield lambda: UNIT_S
        self.units += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eight")
    for number in range(LORA_SLOTS):
        save_file(lora(number), path / f"{number}.safetensors")
    torch.save(NETWORK, path / "base.pt")
    return path


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


def priced(session: Session) -> tuple[LiveMerge, Priced]:
    stream = session._stream
    assert isinstance(stream, LocalStream)
    stopwatch = Priced()
    stream.loras.merge._stopwatch = stopwatch  # type: ignore[assignment]
    return stream.loras.merge, stopwatch


def test_faders_that_never_rest_cost_a_fixed_number_of_blocks_a_chunk(folder: Path) -> None:
    names = [str(number) for number in range(LORA_SLOTS)]
    with opened(folder, *names) as session:
        merge, stopwatch = priced(session)
        play(session, CONTROLS, range(5))
        stream = session._stream
        assert isinstance(stream, LocalStream)
        weights = dict(stream.network.named_parameters())  # type: ignore[attr-defined]
        tensors = {**dict(stream.state.tensors()), **weights}
        play(session, swept(0), range(5, 21))
        places = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        layers = len(stream.network.blocks)
        allowed = int(SHARE * 3 * PERIOD_NS / 1e9 / UNIT_S)
        assert 1 <= allowed < layers, "the budget binds"
        costs, turns = [], []
        for chunk in range(1, 17):
            before, at = stopwatch.units, 21 + 4 * (chunk - 1)
            play(session, swept(chunk), range(at, at + 4))
            costs.append(stopwatch.units - before)
            turns.append(max(merge._turn - unit.turn for unit in merge.units.values()))
            if chunk == 6:
                memory = tensor_bytes()
        assert costs == [allowed] * 16, "no chunk merges more than its share of time allows"
        assert max(turns[6:]) <= math.ceil(layers / allowed) + 1, "and every block has its turn"
        assert tensor_bytes() == memory
        assert places == {name: tensor.data_ptr() for name, tensor in tensors.items()}


def test_while_the_faders_are_still_nothing_is_merged(folder: Path) -> None:
    with opened(folder, *(str(number) for number in range(LORA_SLOTS))) as session:
        _, stopwatch = priced(session)
        play(session, swept(3), range(5))
        moved = stopwatch.units
        assert moved, "before the first chunk the strengths are reached at once"
        play(session, swept(3), range(5, 21))
        assert stopwatch.units == moved


def test_without_a_lora_no_weight_is_copied(folder: Path) -> None:
    with opened(folder) as session:
        merge, stopwatch = priced(session)
        play(session, swept(1), range(13))
        assert (merge.kept_bytes, merge.due, stopwatch.units) == (0, 0, 0)
