"""Runs a whole stream at true sizes on torch's device `meta`, and counts the bytes that a GPU would hold.

Tensors on this device have shapes and types, but no values and no memory, so the 14B model needs none. The code takes
the same paths as on a GPU (`device.type != "cpu"`). What the host would read from the device raises; so does an
operation on tensors of both devices.

All blocks of a network are alike and no temporary tensor outlives a block. So all blocks are built and have their
cache, but a forward runs only the first two.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.models.spec import ModelSpec
from engine.models.wan21 import build
from engine.network import dit_layers, protocol
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape
from engine.network.protocol import keep_blocks
from engine.runtime import graph_capture, quantise
from engine.runtime.graph_checker import EagerDispatchMode
from engine.stream import stream as stream_module
from engine.stream.kv_cache import KVCache, Rule
from engine.stream.noise import RELEASED
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

META = torch.device("meta")
CONVOLUTION = torch.ops.aten.convolution.default
BLOCKS_RUN = 2
COPIES = ("copy_", "_to_copy", "lift_fresh")
GRANULE = 512
"""The caching allocator of CUDA rounds every tensor up to a multiple of this many bytes."""


class Ledger(EagerDispatchMode):
    """Counts the bytes of all tensors on the device, as a caching allocator with a private pool for graphs would.

    Attributes:
        live: bytes of the living tensors outside the pool.
        pool: bytes of the pool; it never shrinks.
        most: largest sum of both.
        sends: operations that copied a tensor from the host to the device, or had tensors of both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.pool = self.most = 0
        self.sends: Counter[str] = Counter()
        self._pool_live = 0
        self._capturing = False
        self._known: dict[int, None] = {}

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """A context in which new tensors are in the pool."""
        self._capturing = True
        try:
            yield
        finally:
            self._capturing = False

    def __torch_dispatch__(
        self, op: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation and count the tensors that it makes."""
        kwargs = kwargs or {}
        if _to_decompose(op):  # in inference mode composite operations arrive whole
            with self:
                result = op.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = _convolution(*args) if op is CONVOLUTION else op(*args, **kwargs)
        given, made = _tensors((*args, *kwargs.values())), _tensors((result,))
        name = op.overloadpacket.__name__
        numbers = name not in COPIES  # other operations take a number of the host as an argument of their kernel
        on_host = any(tensor.is_cpu and (tensor.dim() or not numbers) for tensor in given)
        if on_host and any(tensor.is_meta for tensor in (*given, *made)):
            self.sends[name] += 1
        for tensor in made:
            if tensor.is_meta:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = None
        count = -(-storage.nbytes() // GRANULE) * GRANULE
        pooled = self._capturing
        self._add(count, pooled)
        weakref.finalize(storage, self._forget, key, count, pooled)

    def _forget(self, key: int, count: int, pooled: bool) -> None:
        self._known.pop(key, None)
        self._add(-count, pooled)

    def _add(self, count: int, pooled: bool) -> None:
        if pooled:
            self._pool_live += count
            self.pool = max(self.pool, self._pool_live)
        else:
            self.live += count
        self.most = max(self.most, self.live + self.pool)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors in nested lists and tuples. torch's `tree_leaves` took a third of the time of these tests."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


@functools.cache
def _to_decompose(op: Any) -> bool:
    """Whether the operation is composite. One that returns a view makes no other tensor, so it may stay whole."""
    views = all(result.alias_info is not None for result in op._schema.returns)
    return bool(op.namespace == "aten" and not views and op._can_decompose())


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    *rest: Any,
) -> Tensor:
    """A convolution's result in channels last, as cuDNN returns it; the function for `meta` may return another."""
    made = torch.ops.aten.convolution.default(x, weight, bias, stride, padding, dilation, transposed, *rest)
    if not x.is_meta:
        return made
    form = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
    return torch.empty(made.shape, dtype=x.dtype, device=META, memory_format=form)


class Pool:
    """A `Backend` that runs the work as `CudaGraphs` does: once before the capture, and once in the pool."""

    outlives_failure = False

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        """See `Backend`."""
        work()
        with self._ledger.capturing():
            result = work()
        return lambda: result


class NoNoise:
    """A source of noise without values."""

    def __init__(self, *shape: int) -> None:
        self._shape = shape

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """See `NoiseSource`."""
        channels, height, width = self._shape
        return torch.empty(count, channels, frames, height, width, device=META)


@dataclass(frozen=True, slots=True)
class Bytes:
    """What a stream holds on the device, in bytes.

    Attributes:
        opened: before the warm-up: weights, tables, cache and other state.
        steady: after the warm-up, with the pool.
        pool: the private pool of the graphs.
        most: the largest amount up to then.
        trouble: why graphs were given up; empty if all is well.
        sends: operations that copied from the host to the device during the warm-up.
    """

    opened: int
    steady: int
    pool: int
    most: int
    trouble: str
    sends: Mapping[str, int]


def run(
    patch: pytest.MonkeyPatch,
    spec: ModelSpec,
    vae: str,
    *,
    width: int,
    height: int,
    max_steps: int,
    float8: bool = False,
    graphs: bool = True,
    blocks: tuple[int, int] | None = None,
) -> Bytes:
    """Build the model, warm it up as for a GPU, and count."""
    stand_in(patch)
    ledger = Ledger()
    with ledger, torch.no_grad():
        network = _network(ledger, spec, float8=float8, blocks=blocks)
        stream = LocalStream(
            spec,
            network,
            build.build_codec(spec, vae, META, torch.bfloat16, {}),
            height=height,
            width=width,
            noise=NoNoise(spec.network.latent_channels, height // spec.stride, width // spec.stride),
            rule=Rule(spec.cache.rule),
            noise_rule=RELEASED,
            batch=True,
            max_steps=max_steps,
        )
        opened = ledger.live
        captured = None
        if graphs:
            stream.run = captured = graph_capture.Captured(stream.state, Pool(ledger), 1.0)
        ledger.sends.clear()
        stream.set_prompt(torch.zeros(spec.network.text_len, spec.network.text_dim))
        graph_capture.warm_up(spec, stream, height, width, lambda _: None)
        gc.collect()
        sent, steady = dict(ledger.sends), ledger.live + ledger.pool
        if captured:
            captured.recording = False
        _first_chunk(spec, stream, height, width)
        trouble = captured.trouble if captured else ""
        return Bytes(opened, steady, ledger.pool, ledger.most, trouble, sent)


def _first_chunk(spec: ModelSpec, stream: LocalStream, height: int, width: int) -> None:
    """The first chunk of a show, which is called directly, beside the pool."""
    video = torch.empty(3, spec.first_frames, height, width, device=META)
    noisy, first = stream.encode(video, steps_for(spec.schedule, spec.schedule.strength, stream.max_steps))
    timesteps = steps_for(spec.schedule, spec.schedule.strength, stream.max_steps).timesteps
    for _, clean in stream.denoise(noisy, first, timesteps, "first"):
        stream.decode(clean)


def _network(ledger: Ledger, spec: ModelSpec, *, float8: bool, blocks: tuple[int, int] | None) -> CausalDiT:
    with META, _default_type(torch.bfloat16):
        network = CausalDiT(dit_shape(spec.network)).eval().requires_grad_(False)
    if blocks is not None:
        keep_blocks(network, *blocks)
    if float8:
        in_host_memory(network)
    gc.collect()
    if float8 or blocks is not None:
        ledger.most = ledger.live  # what was in host memory before anything is on the GPU: all, or other ranks' blocks
    if float8:
        quantise.quantise(network, META)
    return network


def in_host_memory(network: CausalDiT) -> None:
    """Give the network weights in host memory, as mapped from a file; they take none, since all have one element."""
    for module in network.modules():
        for name, weights in list(module.named_parameters(recurse=False)):
            mapped = torch.zeros((), dtype=weights.dtype).expand(weights.shape)
            setattr(module, name, nn.Parameter(mapped, requires_grad=False))


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Replace what needs values: the random weights, the attention kernels, the proof of a replay."""

    def random(network: nn.Module) -> nn.Module:
        return network.to(META)

    def some_blocks(network: Any, x: Tensor, context: Any, text: Any, memory: Any, bias: Any = None) -> Tensor:
        return protocol.forward(network, x, context, text[:BLOCKS_RUN], memory, bias)

    patch.setattr(build, "_random", random)
    patch.setattr(stream_module, "forward", some_blocks)
    patch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, *_, **__: torch.empty_like(q))
    patch.setattr(dit_layers, "attend", lambda q, *_: torch.empty_like(q))
    patch.setattr(graph_capture, "_to_host", lambda tensor: torch.empty(0))
    patch.setattr(graph_capture, "_overwrite", lambda tensors, values: None)
    patch.setattr(graph_capture.Captured, "_compare", lambda self, wanted, got: None)
    patch.setattr(KVCache, "coming", lambda self, frames: [])  # what is overwritten is for the proof alone
