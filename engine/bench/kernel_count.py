"""Counts the kernels that a stream launches and the bytes that they move on a GPU, without a GPU.

The stream has its true size, but is on torch's device `meta`: tensors have shapes and no contents, and the code takes
the paths that it takes on a GPU. Composite operations are decomposed into those that launch kernels.

    python -m engine.bench.kernel_count
    python -m engine.bench.kernel_count --models wan21-1.3b --vaes full --rows 1

The counts come from operations and shapes. They are no measurements, and nothing here was compared with a GPU:

* Every operation that is not a view counts as one kernel. A library may use several for one of them (a sort).
* A kernel reads each input once and writes each output once, as if nothing stayed in the GPU's cache.
* A convolution follows cuDNN's rule for layouts: channels last if its input or its weight is. An input or a weight in
  another layout is copied first, which counts.

Kernels of ours count too; compiled code (`compile = "full"`) cannot be counted in this way. What has a kernel of ours
is counted with Triton and without, as on Windows.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.utils._pytree import tree_leaves

from engine.bench import report
from engine.models import registry
from engine.models.spec import Codec, ModelSpec
from engine.models.taehv.vae import TinyCodec, TinyShape, TinyVAE
from engine.models.wan21 import norm_silu
from engine.models.wan21.vae import WanCodec, WanVAE
from engine.models.wan21.vae_shape import VAEShape
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape
from engine.runtime import quantise
from engine.runtime.graph_checker import EagerDispatchMode
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED
from engine.stream.state import InFlight, WorkKey
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

META = torch.device("meta")

ALLOCATIONS = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
"""Operations that launch no kernel."""

FUSED = ("scaled_dot_product_attention", "_fused_rms_norm", "upsample_nearest2d")
"""Operations that torch can decompose, but for which a GPU has a kernel."""

OVERWRITING = ("copy_", "fill_", "zero_")
"""Operations in place that do not read what they overwrite, as all operations with `out=`."""

OVERWRITTEN = {"norm_silu": {"window"}}
"""Arguments that operations of ours write and do not read."""

BY_INDEX = ("gather", "index", "index_select")
"""Operations that read only those elements of their first input that they return."""

COLUMNS = {name: name for name in ("model", "weights", "vae", "triton", "rows", "stage", "kernels", "gb")}


@dataclass(slots=True)
class Counts:
    """Kernels and bytes, each by operation."""

    kernels: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, size: int) -> None:
        """Count one kernel that moves `size` bytes."""
        self.kernels[name] += 1
        self.bytes[name] += size


class KernelCounter(EagerDispatchMode):
    """Counts every operation on the device `meta` within the context; what runs on the CPU is not counted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()

    def __torch_dispatch__(
        self, op: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run and count one operation."""
        kwargs, name = kwargs or {}, op.overloadpacket.__name__
        if name not in FUSED and op._can_decompose():
            with self:
                result = op.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if name == "convolution":
            return self._convolution(op, *args)
        result = _attention(*args) if name == "scaled_dot_product_attention" else op(*args, **kwargs)
        arguments = op._schema.arguments
        named = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | dict(kwargs)
        written = {argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write}
        made = _on_device(result) or _on_device([named.get(argument) for argument in written])
        if not made or name in ALLOCATIONS or op.is_view:
            return result
        if name in OVERWRITING or any(argument.is_out for argument in arguments):
            overwritten = written
        else:
            overwritten = OVERWRITTEN.get(name, set())
        read = _on_device([value for argument, value in named.items() if argument not in overwritten])
        if not written and all(any(_shared(m, r) for r in read) for m in made):
            return result  # a view by another name, such as `_unsafe_view`
        if name == "index_copy_":  # moves only the new rows
            moved = 2 * _bytes(named["source"])
        elif name in BY_INDEX:
            moved = sum(map(_bytes, read[1:])) + 2 * sum(map(_bytes, made))
        else:
            moved = sum(map(_bytes, read)) + sum(map(_bytes, made))
        self.counts.add(name, moved)
        return result

    def _convolution(self, op: Any, x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        """A convolution in the layout that cuDNN chooses."""
        last = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
        layout = last if last in (suggest_memory_format(x), suggest_memory_format(weight)) else torch.contiguous_format
        for given in (x, weight):
            if not given.is_contiguous(memory_format=layout):
                self.counts.add("transpose", 2 * _bytes(given))
        result: Tensor = op(x, weight, *rest)
        self.counts.add("convolution", sum(map(_bytes, _on_device((x, weight, rest, result)))))
        return torch.empty(result.shape, dtype=result.dtype, device=META, memory_format=layout)


def _attention(q: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(q)  # kernels of attention return their result in the queries' layout


def _on_device(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.device.type == "meta"]


def _shared(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage()._cdata == b.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    """Bytes of the tensor's elements; those of an expanded side only once."""
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride else 1
    return size


class _NoNoise:
    """Noise without contents."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self._size = (channels, height, width)

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """[count, C, frames, h, w]."""
        channels, height, width = self._size
        return torch.empty(count, channels, frames, height, width, device=META)


def meta_codec(spec: ModelSpec, vae: str, *, triton: bool = True) -> Codec:
    """The video autoencoder "full", "light" or "tiny" in bf16 on the device `meta`.

    With `triton` it uses the kernel that needs Triton; the tiny one has none.
    """
    shape = VAEShape(**spec.vae)
    with META:
        if vae == "tiny":
            return TinyCodec(TinyVAE(TinyShape()).to(torch.bfloat16), latents=shape)
        base = shape.base if vae == "full" else shape.base // 4
        codec = WanCodec(WanVAE(VAEShape(**{**spec.vae, "base": base})).to(torch.bfloat16))
    if triton:
        codec.use(norm_silu.fused)
    return codec


def meta_stream(
    model: str,
    vae: str,
    *,
    rows: int,
    width: int = 832,
    height: int = 480,
    float8: bool = False,
    triton: bool = True,
) -> LocalStream:
    """A stream of true size in bf16 on the device `meta`, with `rows` denoising steps."""
    spec = registry.get(model)
    with META:
        network = CausalDiT(dit_shape(spec.network)).to(torch.bfloat16).eval().requires_grad_(False)
    if float8:
        quantise.quantise(network)
        for module in network.modules():
            if isinstance(module, quantise.Float8Linear) and triton:
                module.rows = quantise.fused_rows
    stream = LocalStream(
        spec,
        network,
        meta_codec(spec, vae, triton=triton),
        height=height,
        width=width,
        noise=_NoNoise(spec.network.latent_channels, height // spec.stride, width // spec.stride),
        rule=Rule(spec.cache.rule),
        noise_rule=RELEASED,
        batch=True,
        max_steps=rows,
    )
    stream.set_prompt(torch.empty(spec.network.text_len, spec.network.text_dim, device=META))
    return stream


def count_chunk(stream: LocalStream) -> dict[str, Counts]:
    """Counts of one chunk while the cache is full and all rows are in use, by stage: encode, forward, decode."""
    spec, rows = stream.spec, stream.max_steps
    steps = steps_for(spec.schedule, spec.schedule.strength, rows)
    stream.state.encoder.started.fill_(1)
    stream.state.decoder.started.fill_(1)
    stream.state.number = 10 * spec.cache.slots
    stream.state.flights = [InFlight(row, steps.timesteps, stream.state.number, 1, False) for row in range(1, rows)]
    found: dict[str, Counts] = {}

    def run(key: WorkKey, work: Any, *inputs: Tensor) -> Tensor:
        assert key.steady
        with KernelCounter() as counter:
            result: Tensor = work(*inputs)
        found[key.stage] = counter.counts
        return result

    stream.run = run
    frames = spec.frames_per_latent * spec.frames_per_block
    last = stream.state.controller.last_frame
    video = torch.empty(3, frames, *last.shape[1:], device=META)
    with torch.inference_mode():
        noisy, first = stream.encode(video, steps)
        for _, clean in stream.denoise(noisy, first, steps.timesteps, 0):
            stream.decode(clean)
    return found


def table(models: Iterable[str], vaes: Iterable[str], rows: Iterable[int]) -> list[dict[str, Any]]:
    """Rows of `COLUMNS`: the network's forward in bf16 and float8, and both ends of each autoencoder."""
    found: list[dict[str, Any]] = []
    for model, count in product(models, rows):
        for float8, triton in ((False, False), (True, True), (True, False)):
            stream = meta_stream(model, "tiny", rows=count, float8=float8, triton=triton)
            known = {"model": model, "weights": "float8" if float8 else "bf16", "rows": count}
            if float8:
                known["triton"] = "yes" if triton else "no"
            found.append(_row(count_chunk(stream)["forward"], "forward") | known)
    for vae in vaes:
        for triton in (True, False) if vae != "tiny" else (False,):
            stages = count_chunk(meta_stream("wan21-1.3b", vae, rows=1, triton=triton))
            known = {"vae": vae, "triton": "yes" if triton else "no"}
            found += [_row(stages[stage], stage) | known for stage in ("encode", "decode")]
    return found


def _row(counts: Counts, stage: str) -> dict[str, Any]:
    return {"stage": stage, "kernels": counts.kernels.total(), "gb": counts.bytes.total() / 1e9}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Count the kernels and bytes of a chunk at 832x480, without a GPU.")
    parser.add_argument("--models", default="wan21-1.3b,wan21-14b")
    parser.add_argument("--vaes", default="full,light,tiny")
    parser.add_argument("--rows", default="2", help="denoising steps")
    args = parser.parse_args()
    models, vaes = args.models.split(","), args.vaes.split(",")
    report.show("kernels and bytes of a chunk", table(models, vaes, map(int, args.rows.split(","))), COLUMNS)


if __name__ == "__main__":
    main()
