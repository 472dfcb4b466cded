"""No order of sends and receives between the ranks can hang, even where a send waits for its receive, as on GPUs."""

from __future__ import annotations

import queue
import time
from functools import partial
from itertools import pairwise

import pytest
import torch

from engine.distributed.link import Link, RankLostError
from engine.distributed.message import HOST_OPS, Message, Op
from engine.models.wan21.build import WordVectors
from engine.stream.kv_cache import Rule
from engine.stream.timesteps import steps_for
from tests.engine.distributed.shows import SPEC, largest_difference, make, play, splits_over
from tests.engine.distributed.strict_ring import Rendezvous, StrictTransport, ThreadRing

SIZE = 32


@pytest.fixture(scope="module")
def single():
    """The results of a single process, by rule."""
    return {rule: play(*make(SIZE, rule=rule)) for rule in (Rule.REFERENCE, Rule.HONEST)}


@pytest.mark.parametrize(
    "ranks, rule, decodes",
    [
        (2, Rule.REFERENCE, True),
        (2, Rule.HONEST, False),
        (3, Rule.HONEST, True),
        (3, Rule.REFERENCE, False),
        (4, Rule.REFERENCE, True),
    ],
)
def test_ranks_complete_every_split_and_every_change_of_it(single, ranks, rule, decodes):
    splits = splits_over(ranks)
    stream, noise = make(SIZE, splits[-1], rule=rule, decodes=decodes, ring=ThreadRing)

    def move(stream, index: int) -> None:
        if index in (4, 9, 13):
            stream.resplit(splits[(4, 9, 13).index(index) % len(splits)])
        if index in (6, 16):
            stream.set_depth(1 if index == 6 else ranks)

    assert largest_difference(play(stream, noise), single[rule]) <= 1e-5
    assert all(to == rank + 1 for rank, to in stream.ring.meeting.device_messages)
    noise.set_seed(0)
    noise.reset()
    assert largest_difference(play(stream, noise, move), single[rule]) <= 1e-5
    assert stream.split == splits[2 % len(splits)]
    stream.close()


class TwoWayLink(Link):
    """Sends answers from device to device too, as the other messages."""

    def __init__(self, rank: int, world: int, device: torch.device, transport: StrictTransport) -> None:
        super().__init__(rank, world, device, transport)
        if self._answers is not None:
            self._answers.close()
        self._answers = None

    def _receive_buffer(self, size: int, message: Message) -> torch.Tensor:
        if self.rank or message.op in HOST_OPS:
            return super()._receive_buffer(size, message)
        buffer = torch.empty(size, dtype=torch.uint8)
        self._transport.receive_device(buffer, self._previous)
        return buffer


@pytest.mark.parametrize("ranks", [2, 3])
def test_answers_from_device_to_device_would_hang(ranks):
    stream, noise = make(
        SIZE, splits_over(ranks)[0], decodes=True, ring=partial(ThreadRing, link=TwoWayLink, patience=1)
    )
    with pytest.raises(RankLostError, match=f"rank 0 waits to send to 1; .*rank {ranks - 1} waits to send to 0"):
        play(stream, noise)
    with pytest.raises(RankLostError, match="waits to send to"):
        stream.close()


def test_a_long_stream_and_a_rebalance():
    stream, _ = make(SIZE, ((0, 1), (1, 2), (2, 4)), rule=Rule.HONEST, ring=ThreadRing)
    stream.set_prompt(WordVectors(SPEC).encode("sea").embedding)
    first = torch.tensor(700)
    done, in_flight, positions = [], [], []
    for index in range(240):
        steps = steps_for(SPEC.schedule, 0.8, 1 + index // 20 % 4)
        noisy = torch.randn(1, 16, 2 if index == 0 else 1, 4, 4)
        done += stream.denoise(noisy, first, steps.timesteps, index)
        in_flight.append(stream.in_flight)
        positions.append(stream._position)
        if index == 120:
            stream.rebalance()
    assert len(set(in_flight[80:120])) > 1 and len(set(in_flight[200:])) > 1, "rows join and leave, before and after"
    assert sum(b < a for a, b in pairwise(positions)) >= 3, "the positions wrap several times"
    assert [ticket for ticket, _ in done] == list(range(len(done))) and len(done) > 220
    assert all(torch.isfinite(clean).all() for _, clean in done[-20:])
    assert sum(end - start for start, end in stream.split) == 4
    stream.close()


class LateCopy:
    """A copy that the device makes as late as it may: when somebody waits for it."""

    arrived = False

    def __init__(self, source: torch.Tensor) -> None:
        self.source, self.wanted = source, source.clone()

    def wait(self) -> torch.Tensor:
        """See `engine.runtime.transfers.PendingCopy`."""
        time.sleep(0.005)
        assert torch.equal(self.source, self.wanted), "the buffer was overwritten before its copy was made"
        return self.source.clone()


class LateTransfer:
    """A `Transfer` of `LateCopy`."""

    def __init__(self) -> None:
        self.sent = 0

    def send(self, source: torch.Tensor) -> LateCopy:
        """See `Transfer`."""
        self.sent += 1
        return LateCopy(source)


def test_an_answer_that_cannot_be_sent_is_reported_although_nobody_sends_another():
    class Failed(LateTransfer):
        def send(self, source: torch.Tensor) -> LateCopy:
            copy = LateCopy(source)
            copy.wanted = source + 1
            return copy

    told: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    last = Link(1, 2, torch.device("cpu"), StrictTransport(1, Rendezvous(2)), told.put)
    last._down = Failed()
    last.send(Message(Op.FORWARD, parts=[torch.zeros(4)]))
    assert "overwritten" in str(told.get(timeout=30))
    last.close()


def test_no_buffer_is_reused_before_its_copy_to_the_host_is_made(single):
    down = LateTransfer()

    def link(rank: int, world: int, device: torch.device, transport: StrictTransport) -> Link:
        made = Link(rank, world, device, transport)
        made._down = down
        return made

    stream, noise = make(SIZE, splits_over(2)[0], decodes=True, ring=partial(ThreadRing, link=link))
    assert largest_difference(play(stream, noise), single[Rule.REFERENCE]) <= 1e-5
    assert down.sent >= 20
    stream.close()
