"""Captures the heavy work of a stream in CUDA graphs at warm-up and replays it afterwards.

A forward of thirty blocks launches about a thousand kernels, and the GPU waits for the host to launch them. Captured in
a CUDA graph, they are a single launch. There is one graph per `WorkKey` (stage, rows, frames, ...). Everything that
differs from chunk to chunk is in the inputs, which are copied to the tensors that the graph reads. Work that occurs
once in a stream (the first chunk, and chunks while the cache fills) is called directly.

Each capture is verified before it is used: from the same state and inputs, the replay must give the same results as the
direct call. If it does not, or if the work cannot be captured, nothing is captured. On a CPU all work is then called
directly, and the caller of `prepare` is told so. A GPU's process must end: after a failed capture torch may believe
that one is still under way, and then never frees memory that two CUDA streams have used (pytorch/pytorch#180395).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.errors import CaptureError, ModelError
from engine.models.spec import ModelSpec
from engine.network import attention
from engine.runtime import compile_blocks, fused_pass
from engine.runtime.graph_checker import GraphChecker
from engine.stream.protocol import Stream
from engine.stream.state import StreamState, WorkKey
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

log = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 1e-2}
"""Largest relative root mean square difference of a replay from the direct call, by the network's type."""


class Backend(Protocol):
    """Captures work on tensors that keep their addresses.

    Attributes:
        outlives_failure: whether the process can go on after a failed capture.
    """

    outlives_failure: bool

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        """Capture `work`, running it exactly once: a second run would overwrite another slot of the KV cache.

        Args:
            work: returns a new tensor. It has been called before, so that libraries have chosen their kernels. Its
                operations do not depend on the values of tensors, except those in `host`.
            host: tensors in host memory that the work uses.

        Returns:
            A function that replays the work and returns the same tensor each time.

        Raises:
            CaptureError, RuntimeError: if the work cannot be captured; the latter comes from CUDA.
        """
        ...


class CudaGraphs:
    """CUDA graphs that share one memory pool, which is possible because they are never replayed concurrently."""

    outlives_failure = False

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._side = torch.cuda.Stream(device, priority=-1)  # as `use_video_stream`: kernels may keep it in the graph

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        """See `Backend`."""
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            work()  # lets libraries allocate what they keep per CUDA stream
        torch.cuda.current_stream().wait_stream(self._side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


@dataclass(frozen=True, slots=True, eq=False)
class _CapturedWork:
    """A captured piece of work, and the tensors from which it reads its inputs."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], Tensor]

    def __call__(self, inputs: Iterable[Tensor]) -> Tensor:
        for held, new in zip(self.inputs, inputs, strict=True):
            held.copy_(new)
        return self.replay().clone()


class Captured:
    """A `Runner` for a stream that captures recurring work while `recording` is set, and replays captured work.

    Args:
        state: state of the stream.
        backend: captures the work.
        tolerance: largest relative root mean square difference of a replay from the direct call.

    Attributes:
        recording: whether work with a new key is captured.
        trouble: why all work is called directly, for the user; empty if all is well.
    """

    def __init__(self, state: StreamState, backend: Backend, tolerance: float) -> None:
        self.recording = True
        self.trouble = ""
        self._state, self._backend, self._tolerance = state, backend, tolerance
        self._held: dict[WorkKey, _CapturedWork] = {}

    @property
    def keys(self) -> tuple[WorkKey, ...]:
        """Keys of the captured work."""
        return tuple(self._held)

    def __call__(self, key: WorkKey, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """See `Runner`."""
        held = self._held.get(key)
        if held is not None:
            return held(inputs)
        if self.recording and key.steady:
            return self._capture(key, work, inputs)
        return work(*inputs)

    def _capture(self, key: WorkKey, work: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """Call the work, capture it, and keep the capture if a replay from the same state gives the same results.

        What is compared waits in host memory: the state of a large autoencoder takes gigabytes of the GPU.

        Raises:
            CaptureError: if the work cannot be captured, and the process must end therefore.
        """
        state = self._state_of(key)
        after: list[Tensor] | None = None
        try:
            before = [_to_host(tensor) for tensor in state]
            expected = work(*inputs)
            wanted_on_host = _to_host(expected)
            after = [_to_host(tensor) for tensor in state]
            _overwrite(state, before)
            own = tuple(tensor.clone() for tensor in inputs)
            replay = self._backend.capture(lambda: work(*own), self._on_host())
            _overwrite(state, before)
            held = _CapturedWork(own, replay)
            found = held(inputs)
            for wanted, got in zip((wanted_on_host, *after), (found, *state), strict=True):
                self._compare(wanted, got)
        except (RuntimeError, CaptureError) as error:  # CUDA raises RuntimeErrors, also when memory does not suffice
            self._held.clear()
            self.recording = False
            if not self._backend.outlives_failure:
                raise CaptureError(f"The {key.stage} cannot be captured: {error}", 'Choose compile = "off".') from error
            if after is None:
                raise  # the direct call itself failed, and would fail again
            _overwrite(state, after)
            self.trouble = f"The {key.stage} cannot be captured; everything runs without graphs, slower: {error}"
            log.warning(self.trouble)
        else:
            self._held[key] = held
        return expected

    def _state_of(self, key: WorkKey) -> list[Tensor]:
        """The tensors of the state that the work reads and writes.

        Keys and values are left out: with the same queues, the same frames overwrite the same slots, and the previous
        contents of these slots are not read. Only a clean pass in the same forward reads them before.
        """
        if key.stage == "forward":
            cache = self._state.cache
            return [*cache.bookkeeping().values(), *(cache.coming(key.frames) if key.earlier else ())]
        end = self._state.encoder if key.stage == "encode" else self._state.decoder
        return list(end.tensors().values())

    def _on_host(self) -> tuple[Tensor, ...]:
        return self._state.encoder.started, self._state.decoder.started

    def _compare(self, wanted: Tensor, got: Tensor) -> None:
        """Compare a tensor in host memory with one on the device.

        Raises:
            CaptureError: if they differ by more than rounding explains.
        """
        if not wanted.is_floating_point():
            if not torch.equal(wanted, got.cpu()):
                raise CaptureError("a replay leaves other integers in the state than the direct call.")
            return
        error = size = 0.0
        slices = (torch.atleast_1d(tensor).split(1) for tensor in (wanted, got))
        for part, other in zip(*slices, strict=True):  # a slice at a time, as fp64 takes four times the memory
            there = part.to(got.device).double()
            size += there.square().sum().item()
            error += (there - other.double()).square().sum().item()
        if not error <= self._tolerance**2 * size:  # also true for NaN
            relative = math.sqrt(error / max(size, 1e-60))
            raise CaptureError(f"a replay differs from the direct call: relative error {relative:.1e}.")


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in host memory."""
    return tensor.to("cpu", copy=True)


def _overwrite(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def choose(wanted: str, device: torch.device, *, devices: int = 1, warmup: bool = True) -> str:
    """The mode for a value of `Config.compile`: "off", "graphs" or "full".

    "auto" gives "graphs" on a single CUDA device. "graphs" on a CPU uses `graph_checker`, which gives the same results
    and is not faster, but checks every operation.

    Raises:
        ModelError: if the wanted mode is not possible.
    """
    if wanted == "auto":
        return "graphs" if device.type == "cuda" and devices <= 1 and warmup else "off"
    if wanted == "off":
        return wanted
    if devices > 1:
        raise ModelError(
            f"compile = {wanted!r} works on one device, but {devices} are configured.",
            'Choose compile = "auto", or one device.',
        )
    if not warmup:
        raise ModelError(f"compile = {wanted!r} needs the warm-up, but warmup is off.", "Turn warmup on.")
    if device.type not in ("cuda", "cpu"):
        raise ModelError(f"compile = {wanted!r} is not supported on {device.type}.", 'Choose compile = "off".')
    if wanted == "full":
        compile_blocks.check(device)
    return wanted


def prepare(spec: ModelSpec, stream: Stream, mode: str, height: int, width: int, say: Callable[[str], None]) -> str:
    """Capture or compile the work of a new stream and warm it up. Afterwards the stream is as new, without a prompt.

    Args:
        spec: the model's row.
        stream: a new stream.
        mode: from `choose`.
        height, width: size of the frames in pixels.
        say: called with progress texts.

    Returns:
        What went wrong and what was done about it, for the user; empty if all is well.

    Raises:
        CaptureError: if the work cannot be captured on a GPU. Then this process must not go on with another stream.
        ModelError: if a stream over several processes is to be captured or compiled.
    """
    device = stream.device
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # sizes never change, so the fastest convolution is searched only once
    if mode == "off":
        with attention.measuring(device.type == "cuda"):
            warm_up(spec, stream, height, width, say)
        return ""
    if not isinstance(stream, LocalStream):
        raise ModelError(f"compile = {mode!r} works on one device.", 'Choose compile = "auto".')
    stream.whole_text = True  # else a prompt of another length would have to be captured or compiled again
    if mode == "full":
        say("compiling (takes minutes the first time)")
        compile_blocks.compile_blocks(stream.network)
    captured = None
    if mode == "graphs" or device.type == "cuda":
        backend = CudaGraphs(device) if device.type == "cuda" else GraphChecker()
        stream.run = captured = Captured(stream.state, backend, TOLERANCE[stream.dtype])
        stream.set_prompt(
            torch.randn(spec.network.text_len, spec.network.text_dim, generator=torch.Generator().manual_seed(1))
        )
    with attention.measuring(device.type == "cuda"):
        warm_up(spec, stream, height, width, say)
    if captured is None:
        return ""
    captured.recording = False
    for keys in stream.state.text:
        for tensor in keys:
            tensor.zero_()
    return captured.trouble


def warm_up(spec: ModelSpec, stream: Stream, height: int, width: int, say: Callable[[str], None]) -> None:
    """Run a first chunk, fill the cache, run every number of steps, and reset the stream.

    So nothing is compiled, tuned, captured or allocated later, during the performance.
    """
    later = spec.frames_per_latent * spec.frames_per_block
    counts = [1] * (math.ceil(spec.cache.slots / spec.frames_per_block) + 1)
    for steps_asked in range(1, stream.max_steps + 1):
        counts += [steps_asked] * steps_asked  # after this many chunks, this many rows are in use
    generator = torch.Generator().manual_seed(2)

    def chunk(count: int) -> None:
        frames = later if stream.begun else spec.first_frames
        video = torch.rand(3, frames, height, width, generator=generator).mul_(2).sub_(1).to(stream.device)
        steps = steps_for(spec.schedule, spec.schedule.strength, count, opening=not stream.begun)
        noisy, first = stream.encode(video, steps)
        for _, clean in stream.denoise(noisy, first, steps.timesteps, True):
            stream.decode(clean)

    def finished() -> None:
        chunk(1)
        torch.cuda.synchronize(stream.device)

    for number, count in enumerate(counts):
        say(f"warming up, {100 * number // len(counts)} %")
        chunk(count)
    if isinstance(stream, LocalStream) and stream.device.type == "cuda":
        fused_pass.choose(stream, finished)
    stream.reset()
