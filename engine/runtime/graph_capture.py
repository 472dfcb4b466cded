"""The fast path of one device: heavy work is captured at warm-up and replayed from then on, and nothing on stage.

A forward of thirty blocks is a thousand small calls; a GPU waits for the host that makes them. Captured once in a CUDA
graph they are one call. Each `WorkKey` (stage, rows, frames, ...) has one graph; what differs from chunk to chunk goes
into its inputs, which are copied to where the graph reads them. Work that comes up once in a stream (the first block,
the cache while it fills) is run at once, as is everything where nothing was captured.

Whatever is captured is proved before it is used: on the same memory and inputs the replay must give what the plain
call gave. If it does not, or cannot be captured, everything runs at once and whoever opened the stream is told.

Must not know frames, controls, or what a network does.
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
from engine.runtime import compile_blocks
from engine.runtime.graph_checker import GraphChecker
from engine.stream.protocol import Stream
from engine.stream.state import StreamState, WorkKey
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

log = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 1e-2}
"""Most that a replay may differ from the plain call, by the network's type: root mean square, relative."""


class Backend(Protocol):
    """Captures work on tensors that stay where they are."""

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        """Capture `work`, and do it exactly once meanwhile: a second time would write the cache's next slot.

        Args:
            work: was done before, so that libraries have chosen their kernels; makes no decision by what tensors
                hold, but for those in `host`; gives back a new tensor.
            host: tensors of the work that lie on the host.

        Returns:
            Replays it; its result is one and the same tensor each time.

        Raises:
            CaptureError: if it cannot be captured (or RuntimeError: whatever the device says).
        """
        ...


class CudaGraphs:
    """CUDA graphs that share one pool of memory: they are replayed one after the other, never side by side."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._side = torch.cuda.Stream(device)

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        """See `Backend`."""
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            work()  # makes what libraries keep for each stream
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
    """A captured piece of work and the tensors that it reads its inputs from."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], Tensor]

    def __call__(self, inputs: Iterable[Tensor]) -> Tensor:
        for held, new in zip(self.inputs, inputs, strict=True):
            held.copy_(new)
        return self.replay().clone()


class Captured:
    """A stream's `run` (a `Runner`) that captures steady work while `recording`, and replays them.

    Args:
        state: the stream's.
        backend: how to capture.
        tolerance: most that a replay may differ from the plain call, root mean square, relative.

    Attributes:
        recording: whether work that was not seen before is captured.
        trouble: why nothing is captured any more, in words; empty if all is well.
    """

    def __init__(self, state: StreamState, backend: Backend, tolerance: float) -> None:
        self.recording = True
        self.trouble = ""
        self._state, self._backend, self._tolerance = state, backend, tolerance
        self._held: dict[WorkKey, _CapturedWork] = {}

    @property
    def keys(self) -> tuple[WorkKey, ...]:
        """What is captured."""
        return tuple(self._held)

    def __call__(self, key: WorkKey, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Do the work; the result is the caller's own."""
        held = self._held.get(key)
        if held is not None:
            return held(inputs)
        if self.recording and key.steady:
            return self._capture(key, work, inputs)
        return work(*inputs)

    def _capture(self, key: WorkKey, work: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """Do the work plainly, capture it, and hold it if a replay from the same memory does the same."""
        memory = self._memory(key.stage)
        before = [tensor.clone() for tensor in memory]
        expected = work(*inputs)
        after = [tensor.clone() for tensor in memory]
        try:
            _overwrite(memory, before)
            own = tuple(tensor.clone() for tensor in inputs)
            replay = self._backend.capture(lambda: work(*own), self._on_host())
            _overwrite(memory, before)
            held = _CapturedWork(own, replay)
            found = held(inputs)
            for wanted, got in zip((expected, *after), (found, *memory), strict=True):
                self._compare(wanted, got)
        except (RuntimeError, CaptureError) as error:  # RuntimeError: whatever CUDA reports, want of memory included
            _overwrite(memory, after)
            self._held.clear()
            self.recording = False
            self.trouble = f"The {key.stage} cannot be captured and everything runs without, slower: {error}"
            log.warning(self.trouble)
        else:
            self._held[key] = held
        return expected

    def _memory(self, stage: str) -> list[Tensor]:
        """What the stage reads and writes. Of the cache its keys and values need not be put back: from the same queues
        the same frames are written to the same slots, and what was there before is not read."""
        if stage == "forward":
            return [tensor for name, tensor in self._state.cache.tensors().items() if name not in ("k", "v")]
        end = self._state.encoder if stage == "encode" else self._state.decoder
        return list(end.tensors().values())

    def _on_host(self) -> tuple[Tensor, ...]:
        return self._state.encoder.started, self._state.decoder.started

    def _compare(self, wanted: Tensor, got: Tensor) -> None:
        """Raises:
        CaptureError: if they differ by more than the arithmetic explains.
        """
        if not wanted.is_floating_point():
            if not torch.equal(wanted, got):
                raise CaptureError("a replay leaves other counts behind than the plain call.")
            return
        error, size = (wanted.double() - got.double()).norm().item(), wanted.double().norm().item()
        if not error <= self._tolerance * size:  # also where there is no number at all
            raise CaptureError(f"a replay differs from the plain call by {error / max(size, 1e-30):.1e} of it.")


def _overwrite(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def choose(wanted: str, device: torch.device, *, devices: int = 1, warmup: bool = True) -> str:
    """What `Config.compile` means here: "off", "graphs" or "full".

    "auto" captures on a CUDA device that works alone. "graphs" on a CPU is a rehearsal (`graph_checker`): the
    same results, checked at every step and no faster.

    Raises:
        ModelError: if what is wanted cannot be had.
    """
    if wanted == "auto":
        return "graphs" if device.type == "cuda" and devices <= 1 and warmup else "off"
    if wanted == "off":
        return wanted
    if devices > 1:
        raise ModelError(
            f"compile = {wanted!r} is for one device, but {devices} were named.",
            'Choose compile = "auto", or one device.',
        )
    if not warmup:
        raise ModelError(f"compile = {wanted!r} happens at warm-up, but warmup is off.", "Leave warmup on.")
    if device.type not in ("cuda", "cpu"):
        raise ModelError(f"compile = {wanted!r} is not built for {device.type}.", 'Choose compile = "off".')
    return wanted


def prepare(spec: ModelSpec, stream: Stream, mode: str, height: int, width: int, say: Callable[[str], None]) -> str:
    """Make a new stream fast, in a mode from `choose`, and run all its paths once; it is as new afterwards.

    Returns:
        What went wrong, in words, and how it goes on; empty if all is well.

    Raises:
        ModelError: if a stream of several processes is to be captured or compiled.
    """
    device = stream.device
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # sizes never change: the fastest convolution is found once
    if mode == "off":
        with attention.measuring(device.type == "cuda"):
            warm_up(spec, stream, height, width, say)
        return ""
    if not isinstance(stream, LocalStream):
        raise ModelError(f"compile = {mode!r} is for one device.", 'Choose compile = "auto".')
    stream.whole_text = True  # a prompt of another length would be captured or compiled anew
    if mode == "full":
        say("compiling (the first time it takes minutes)")
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
    """Run a first block, a full cache and every number of steps, then make the stream new again.

    So nothing is compiled, tuned, captured or allocated on stage.
    """
    later = spec.frames_per_latent * spec.frames_per_block
    counts = [1] * (math.ceil(spec.cache.slots / spec.frames_per_block) + 1)
    for steps_asked in range(1, stream.max_steps + 1):
        counts += [steps_asked] * steps_asked  # so often until that many rows are in use
    generator = torch.Generator().manual_seed(2)
    for number, count in enumerate(counts):
        say(f"warming up, {100 * number // len(counts)} %")
        frames = later if stream.begun else spec.first_frames
        video = torch.rand(3, frames, height, width, generator=generator).mul_(2).sub_(1).to(stream.device)
        steps = steps_for(spec.schedule, spec.schedule.strength, count)
        noisy, first = stream.encode(video, steps)
        for _, clean in stream.denoise(noisy, first, steps.timesteps, number):
            stream.decode(clean)
    stream.reset()
