"""LoRAs over several ranks: each merges its own blocks, and the pictures are those of one process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.config import Config, LoraConfig
from engine.controls import LORA_SLOTS, Controls
from engine.distributed.lora import pieces as sending
from engine.distributed.lora import ring_loras
from engine.distributed.lora.pieces import Arrival, messages_of
from engine.distributed.message import LORA_OPS, Message, Op
from engine.distributed.pipeline_stream import PipelineStream
from engine.frame import Frame
from engine.models import registry
from engine.network.lora import target, updates
from engine.network.lora.updates import Lora
from engine.session import Session
from engine.stream.kv_cache import Rule
from tests.engine.distributed.shows import SPEC, largest_difference, make, play, splits_over
from tests.engine.distributed.strict_ring import ThreadRing
from tests.engine.test_lora_faults import dora
from tests.engine.test_loras import NETWORK, lora
from tests.support.priced_steps import PricedSteps, total

STRENGTHS = (0.6, -0.8, 0.5, *(0.0,) * (LORA_SLOTS - 3))
AT_ONCE = float("inf")


def outside() -> dict[str, Tensor]:
    """A LoRA of what every rank has: the prompt's and the time's embedding."""
    file, generator = {}, torch.Generator().manual_seed(8)
    for module in ("text_embedding.2", "time_projection.1", "head.head"):
        weight = NETWORK[f"{module}.weight"]
        file[f"{module}.lora_A.weight"] = torch.randn(2, weight.shape[1], generator=generator) * 0.1
        file[f"{module}.lora_B.weight"] = torch.randn(weight.shape[0], 2, generator=generator) * 0.1
    return file


FILES = (lora(1), dora(2), outside())


def load(stream, files: Sequence[dict[str, Tensor]] = FILES, strengths: Sequence[float] = STRENGTHS) -> None:
    for slot, file in enumerate(files):
        read = updates.read(file, stream.loras.base, f"file {slot}")
        stream.loras.load(slot, stream.loras.place(read))
    stream.loras.blend(strengths, AT_ONCE)


@pytest.fixture(scope="module")
def single():
    """The show of one process with the LoRAs, and one without."""
    stream, noise = make(32, rule=Rule.HONEST)
    plain = play(stream, noise)
    noise.set_seed(0)
    noise.reset()
    load(stream)
    return play(stream, noise), plain


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_rank_merges_its_own_blocks_also_while_they_move(single, ranks: int) -> None:
    wanted, plain = single
    assert largest_difference(wanted, plain) > 0.01
    splits = splits_over(ranks)
    stream, noise = make(32, splits[-1], rule=Rule.HONEST, ring=ThreadRing)
    load(stream)

    def move(stream: PipelineStream, index: int) -> None:
        if index in (4, 9, 13):
            stream.resplit(splits[(4, 9, 13).index(index) % len(splits)])

    assert largest_difference(play(stream, noise, move), wanted) <= 1e-5
    noise.set_seed(0)
    noise.reset()
    stream.loras.load(1, None)
    stream.loras.blend((0.0,) * LORA_SLOTS, AT_ONCE)
    assert largest_difference(play(stream, noise, move), plain) <= 1e-5, "no LoRA leaves a trace"
    stream.close()


def test_a_file_is_sent_in_bounded_pieces_a_few_with_each_chunk(single, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PIECE", 4_000)
    stream, noise = make(32, splits_over(2)[0], rule=Rule.HONEST, ring=ThreadRing)
    told: list[Message] = []
    tell = stream.ring.tell
    stream.ring.tell = lambda message: told.append(message) or tell(message)  # type: ignore[func-returns-value]
    stream.loras.blend(STRENGTHS, AT_ONCE)
    for slot, file in enumerate(FILES):
        stream.loras.load(slot, stream.loras.place(updates.read(file, stream.loras.base, "file")))
    calls = 0
    while stream.loras._queue:
        before = len(told)
        stream.loras.blend(STRENGTHS, 0.01)
        of_files = [message for message in told[before:] if message.op in (Op.LORA, Op.LORA_PIECE)]
        assert len(of_files) <= ring_loras.MESSAGES
        calls += 1
    assert calls > 10
    assert all(part.nbytes <= 4_000 for message in told if message.op is Op.LORA_PIECE for part in message.parts)
    assert {message.op for message in told} <= set(LORA_OPS)
    stream.loras.blend(STRENGTHS, AT_ONCE)
    count = len(told)
    stream.loras.blend(STRENGTHS, AT_ONCE)
    assert len(told) == count, "a fader that rests sends nothing"
    assert largest_difference(play(stream, noise), single[0]) <= 1e-5
    stream.close()


def test_each_rank_follows_a_fader_by_itself_within_its_share_of_the_time(
    single, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "PART_BYTES", 2**16)
    stream, noise = make(32, splits_over(2)[0], rule=Rule.HONEST, ring=ThreadRing)
    load(stream, strengths=(0.0,) * LORA_SLOTS)
    merges = [loras._live.merge for loras in (stream.loras.own, stream.ring.ranks[0].loras)]
    stopwatches = [PricedSteps(1 / 2**18, 0.5) for _ in merges]
    for merge, stopwatch in zip(merges, stopwatches, strict=True):
        merge._stopwatch = stopwatch
    spent: list[list[float]] = [[], []]

    def move(stream: PipelineStream, index: int) -> None:
        stream.set_depth(1)
        for own, stopwatch in zip(spent, stopwatches, strict=True):
            own.append(total(stopwatch.bill()))
        stream.loras.blend(STRENGTHS, 12.0)

    play(stream, noise, move)
    for own in spent:
        assert sum(seconds > 0 for seconds in own) > 2 and max(own) <= 2 * 12.0 / 2, "a chunk has up to two forwards"
    stream.loras.blend(STRENGTHS, AT_ONCE)
    noise.set_seed(0)
    noise.reset()
    assert largest_difference(play(stream, noise), single[0]) <= 1e-5
    stream.close()


def test_a_choice_that_is_replaced_while_it_is_sent_never_takes_effect() -> None:
    stream, _ = make(32, splits_over(2)[0], rule=Rule.HONEST, ring=ThreadRing)
    first, second = (stream.loras.place(updates.read(lora(n), stream.loras.base, str(n))) for n in (1, 2))
    stream.loras.load(0, first)
    stream.loras.blend(STRENGTHS, 0.01)
    stream.loras.load(0, second)
    stream.loras.blend(STRENGTHS, AT_ONCE)
    other = stream.ring.ranks[0].loras
    stream.close()
    held = other._loras[0]
    assert held is not None and held.source == "2"


def test_a_lora_arrives_as_it_was_sent() -> None:
    sent = updates.read({**dora(3), **outside(), "blocks.0.ffn.0.diff_b": torch.ones(256)}, NETWORK, "mixed")
    head, *pieces = messages_of(2, sent)
    arrival, found = Arrival(head.text, head.parts[0]), None
    for piece in pieces:
        assert found is None
        found = arrival.add(piece.parts[0])
    assert isinstance(found, Lora) and arrival.slot == 2
    assert found.updates.keys() == sent.updates.keys()
    for name, update in sent.updates.items():
        for part in sending.PARTS:
            a, b = getattr(update, part), getattr(found.updates[name], part)
            assert (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))
        assert found.updates[name].scale == update.scale


def pictures(session: Session, controls: Controls, numbers: range) -> dict[int, np.ndarray]:
    found = []
    for n in numbers:
        pixels = np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        session.feed(Frame(pixels, pts_ns=n * 40_000_000, seq=n))
        if session.ready:
            found += session.step(controls)
    return {frame.seq: frame.pixels.astype(int) for frame in found}


def test_a_session_on_two_processes_equals_one_and_loads_its_loras_again_when_a_rank_is_lost(tmp_path: Path) -> None:
    assert registry.get("wan21-tiny") is SPEC
    save_file(lora(1), tmp_path / "noir.safetensors")
    given = (LoraConfig(file=str(tmp_path / "noir.safetensors"), name="Noir"),)
    config = Config(
        model="wan21-tiny", width=32, height=32, device="cpu", dtype="float32", threads=1, max_steps=2, loras=given
    )
    controls = Controls(prompt_1="sea", prompt_seconds=0.0, strength=0.8, steps=2, lora_1=0.9)
    with Session.open(config, files={}) as session:
        wanted = pictures(session, controls, range(41))
    with Session.open(config.model_copy(update={"devices": ("cpu", "cpu")}), files={}) as session:
        found = pictures(session, controls, range(41))
        assert len(found) >= 9 and session.health.loras == "1 Noir"
        assert max(np.abs(found[seq] - wanted[seq]).max() for seq in found) <= 1
        session._stream.ring.processes[1].kill()  # type: ignore[attr-defined]
        n, troubles, end = 41, "", time.monotonic() + 60
        while not (session.health.devices == 1 and session.health.loras == "1 Noir"):
            assert time.monotonic() < end, session.health
            pictures(session, controls, range(n, n + 4))
            troubles += session.health.trouble
            n += 4
        assert "Lost cpu (rank 1)" in troubles
