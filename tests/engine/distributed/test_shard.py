"""A rank's forward and rebalance as a GPU sees them: no copy that the host waits for, no second copy of the shard."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.distributed import block_shard
from engine.distributed.block_shard import BlockShard, to_device
from engine.distributed.link import Link
from engine.distributed.message import Message, Op, RowOrder
from engine.distributed.pipeline_stream import PipelineStream
from engine.distributed.split import Split
from engine.models import registry
from engine.models.wan21.build import build_codec
from engine.network import attention, dit_layers
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape
from engine.network.protocol import keep_blocks
from engine.stream.kv_cache import Rule
from engine.stream.noise import RULES
from engine.stream.state import new_cache
from tests.engine.distributed.shows import SPEC, WordVectors, make
from tests.engine.distributed.strict_ring import ThreadRing

META = torch.device("meta")


def shard_on_meta(model: str, height: int, width: int, blocks: tuple[int, int]) -> BlockShard:
    """Blocks of a model with its true shapes, without their contents."""
    spec = registry.get(model)
    with META:
        network = CausalDiT(dit_shape(spec.network)).to(torch.bfloat16).eval().requires_grad_(False)
    keep_blocks(network, *blocks)
    network.fuse()
    cache = new_cache(
        spec,
        Rule.HONEST,
        height=height,
        width=width,
        layers=blocks[1] - blocks[0],
        rows=2,
        device=META,
        dtype=torch.bfloat16,
    )
    return BlockShard(
        network, cache, network.tables(height // spec.stride, width // spec.stride, torch.arange(1001)), 4
    )


class NoWaitingCopies(TorchFunctionMode):
    """Raises at a copy from host memory for which the host would wait for the device: every one that is pageable."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") not in (None, torch.device("cpu"), "cpu"):
            raise AssertionError(f"torch.tensor(..., device={kwargs['device']}) waits for the device")
        result = func(*args, **kwargs)
        moved = func is Tensor.to and args[0].device.type == "cpu" and result.device.type == "meta"
        if moved:
            assert kwargs.get("non_blocking"), "a copy to the device waits for it"
            self.copies += 1
        return result


def test_a_forward_of_a_rank_makes_no_copy_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dit_layers, "attend", lambda q, k, v, mask=None: torch.empty_like(q))
    shard = shard_on_meta("wan21-tiny", 64, 64, (1, 3))
    rows = (RowOrder(9, 3, False, 1), RowOrder(8, 2, True, 0))
    message = Message(Op.FORWARD, rows, 1, 6, True, copy=(0, 1))
    tokens = 8 // SPEC.network.patch[1] * (8 // SPEC.network.patch[2])
    heads = SPEC.network.heads * SPEC.network.head_dim
    x_SLD = torch.empty(2, tokens, heads, dtype=torch.bfloat16, device=META)
    with NoWaitingCopies() as mode:
        out = shard.run(message, x_SLD, torch.empty(2, dtype=torch.int64, device=META))
    assert out.shape == x_SLD.shape and mode.copies == 2


class FirstRank:
    """Stands for a ring of two: the other rank answers at once, with latents of any value."""

    def __init__(self) -> None:
        self.world, self.decodes = 2, False
        self.job = SimpleNamespace(split=((0, 2), (2, 4)))
        self.sent: list[Message] = []
        self._answers: deque[Message] = deque()

    def tell(self, message: Message) -> None:
        """See `Ring`."""
        self.sent.append(message)
        self._answers.append(Message(Op.FORWARD, parts=[torch.empty_like(message.parts[2])]))

    def receive(self) -> Message:
        """See `Ring`."""
        return self._answers.popleft()


def test_a_call_of_rank_0_makes_no_copy_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dit_layers, "attend", lambda q, k, v, mask=None: torch.empty_like(q))
    shard, ring = shard_on_meta("wan21-tiny", 64, 64, (0, 2)), FirstRank()
    frames = SPEC.frames_per_block
    noise = SimpleNamespace(draw=lambda step, count, frames: torch.empty(count, 16, frames, 8, 8, device=META))
    stream = PipelineStream(
        ring,  # type: ignore[arg-type]
        SPEC,
        shard.network,
        build_codec(SPEC, "tiny", torch.device("cpu"), torch.float32, {}),
        height=64,
        width=64,
        noise=noise,  # type: ignore[arg-type]
        rule=Rule.HONEST,
        noise_rule=RULES["released"],
        batch=True,
        max_steps=2,
    )
    first = torch.empty((), dtype=torch.int64, device=META)
    stream.denoise(torch.empty(1, 16, SPEC.first_latents, 8, 8, device=META), first, (700, 500), 0)
    chunk = torch.empty(1, 16, frames, 8, 8, device=META)
    for number in range(1, 6):
        ring.sent.clear()
        with NoWaitingCopies() as mode:
            stream.denoise(chunk, first, (700, 500), number)
        (message,) = ring.sent
        assert mode.copies == 2, "the timesteps, and the orders of the rows"
    assert len(message.rows) == 2


def test_a_prompt_on_the_device_is_read_without_a_copy_that_waits() -> None:
    """`engine.stream.prompts` uploads it beforehand."""
    shard = shard_on_meta("wan21-tiny", 64, 64, (1, 3))
    with NoWaitingCopies() as mode:
        shard.read(1, torch.empty(SPEC.network.text_len, SPEC.network.text_dim, device=META))
    assert mode.copies == 0


def test_numbers_are_sent_to_a_gpu_from_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Held:
        def to(self, device: torch.device, *, non_blocking: bool) -> str:
            asked.append((device.type, non_blocking))
            return "sent"

    def tensor(numbers: object, *, dtype: torch.dtype, pin_memory: bool) -> Held:
        asked.append((numbers, dtype, pin_memory))
        return Held()

    monkeypatch.setattr(block_shard.torch, "tensor", tensor)
    assert to_device([[1, 2]], torch.device("cuda")) == "sent"  # type: ignore[comparison-overlap]
    assert asked == [([[1, 2]], torch.int64, True), ("cuda", True)]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors on the device meta that exist, and the most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.device == META:
                storage = made.untyped_storage()
                key = storage._cdata
                if key not in self.known:
                    self.known[key] = storage.nbytes()
                    weakref.finalize(storage, self.known.pop, key, None)
                    self.most = max(self.most, sum(self.known.values()))
        return out


class FakeLink:
    """A link of one rank that notes what moves, and how many bytes one message has."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.given: list[int] = []
        self.taken: list[int] = []

    def give(self, tensors: list[Tensor], to: int) -> None:
        """See `Link`."""
        self.given += [tensor.contiguous().nbytes for tensor in tensors]

    def take(self, tensors: list[Tensor], source: int) -> None:
        """See `Link`."""
        assert all(tensor.is_contiguous() for tensor in tensors)
        self.taken += [tensor.nbytes for tensor in tensors]


@pytest.mark.parametrize("rank, new", [(0, ((0, 24), (24, 40))), (1, ((0, 24), (24, 40))), (1, ((0, 17), (17, 40)))])
def test_a_rebalance_of_14b_holds_nothing_twice(rank: int, new: Split) -> None:
    old = ((0, 20), (20, 40))
    link = FakeLink(rank)
    with LiveBytes() as memory:
        shard = shard_on_meta("wan21-14b", 480, 832, old[rank])
        before, memory.most = sum(memory.known.values()), 0
        shard.resplit(link, old, new)  # type: ignore[arg-type]
        after = sum(memory.known.values())
    assert len(shard.network.blocks) == new[rank][1] - new[rank][0] == len(shard.texts)
    assert abs(after - before) == pytest.approx(sum(link.taken) + sum(link.given), rel=0.02)
    block = sum(weights.nbytes for weights in shard.network.blocks[0].parameters())
    new_blocks = 2 * block  # those without weights, which are on meta with a GPU too and take nothing there
    assert memory.most <= max(before, before + sum(link.taken)) + new_blocks + 2**27
    assert max(link.given + link.taken) < 0.3 * 2**30


class TakesTurns:
    """A transport that refuses a second tensor before the first has arrived."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.under_way = 0

    def send_device(self, data: Tensor, to: int) -> TakesTurns:
        """See `Transport`."""
        self.log.append(f"{data.numel()} to {to}")
        self.under_way += 1
        assert self.under_way == 1, "two tensors, and their copies, are in transit at once"
        return self

    def wait(self) -> None:
        """See `Delivery`."""
        self.under_way -= 1

    def receive_device(self, data: Tensor, source: int, *, host_waits: bool = False) -> None:
        """See `Transport`."""
        assert host_waits, "the next tensor would be asked for before this one is there"
        self.log.append(f"{data.numel()} from {source}")


def test_blocks_move_one_tensor_at_a_time() -> None:
    transport, tensors = TakesTurns(), [torch.zeros(count) for count in (3, 5, 7)]
    link = Link(0, 3, torch.device("cpu"), transport)  # type: ignore[arg-type]
    link.give(tensors, 2)
    assert not transport.under_way
    link.take(tensors, 1)
    assert transport.log == ["3 to 2", "5 to 2", "7 to 2", "3 from 1", "5 from 1", "7 from 1"]


def test_ranks_are_tuned_in_the_warm_up_like_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    decisions: dict[Any, Any] = {}
    monkeypatch.setattr(attention, "decisions", decisions)
    tuned: Callable[[Any], ThreadRing] = lambda job: ThreadRing(replace(job, tuned=True))  # noqa: E731
    stream, _ = make(32, ((0, 2), (2, 4)), ring=tuned)
    assert torch.backends.cudnn.benchmark
    stream.set_prompt(WordVectors(SPEC).encode("sea").embedding)
    for index in range(3):
        stream.denoise(torch.randn(1, 16, 2 if index == 0 else 1, 4, 4), torch.tensor(700), (700,), index)
    assert decisions
    stream.reset()
    stream.ring.tell(Message(Op.READY))
    stream.ring.receive()
    assert not attention._measuring
    stream.close()
