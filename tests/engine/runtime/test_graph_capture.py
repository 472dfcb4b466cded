"""Captured work, checked without a GPU: equal results, no capture after the warm-up, fixed addresses, failures told."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.config import Config
from engine.errors import CaptureError, ModelError
from engine.models.ember.codec import EmberCodec
from engine.models.spec import CacheShape, ModelSpec, Schedule
from engine.models.taehv.vae import TinyShape
from engine.models.wan21 import build
from engine.models.wan21.build import build_codec
from engine.runtime import graph_capture
from engine.runtime.graph_capture import Captured, choose, prepare
from engine.runtime.graph_checker import GraphChecker
from engine.session import Session
from engine.stream.kv_cache import Rule
from engine.stream.state import WorkKey
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for
from tests.engine.stream.test_stream import SHAPE, SIDE, SPEC, stream
from tests.engine.test_session import CONTROLS, play

CPU = torch.device("cpu")


def prompt(seed: int, spec: ModelSpec = SPEC) -> Tensor:
    return torch.randn(spec.network.text_len, spec.network.text_dim, generator=torch.Generator().manual_seed(seed))


class Counting(GraphChecker):
    """Counts the replays of each capture."""

    def __init__(self) -> None:
        self.replays: list[int] = []

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        number = len(self.replays)
        self.replays.append(0)
        replay = super().capture(work, host)

        def counted() -> Tensor:
            self.replays[number] += 1
            return replay()

        return counted


def captured(made: LocalStream, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """Prepare a stream with capture, as on a GPU; count captures and replays."""
    counting = Counting()
    monkeypatch.setattr(graph_capture, "GraphChecker", lambda: counting)
    assert prepare(made.spec, made, "graphs", SIDE, SIDE, lambda _: None) == ""
    made.noise.reset()
    return counting


def show(made: LocalStream, chunks: int = 20) -> list[tuple[int, Tensor, Tensor]]:
    """Run a stream with all live changes: prompt, strength, 1 to 4 steps up and down, anchor, reset.

    It is reset, with chunks in flight, and gets its anchor once its cache is full.
    """
    spec, out = made.spec, []
    generator = torch.Generator().manual_seed(5)
    made.set_prompt(prompt(2, spec))
    for chunk in range(chunks):
        if chunk % 7 == 6:
            made.set_prompt(prompt(chunk, spec))
        if chunk == chunks - 13:
            assert made.state.number >= spec.cache.slots
            assert bool(made.in_flight) == made.batch
            for ticket, clean in made.flush():
                out.append((ticket, clean, made.decode(clean)))
            made.reset()
        steps = steps_for(spec.schedule, (0.8, 0.6, 1.0)[chunk % 3], (1, 2, 4, 4, 4, 4, 3, 1, 2, 2, 4)[chunk % 11])
        frames = spec.frames_per_latent * spec.frames_per_block if made.begun else spec.first_frames
        video = torch.rand(3, frames, SIDE, SIDE, generator=generator) * 2 - 1
        x, first = made.encode(video, steps, motion=(1.0, 0.3)[chunk % 2])
        assert chunk != 14 or made.state.number >= spec.cache.slots
        for ticket, clean in made.denoise(x, first, steps.timesteps, chunk, anchor=chunk == 14):
            out.append((ticket, clean, made.decode(clean)))
    return out


def same(a: list[tuple[int, Tensor, Tensor]], b: list[tuple[int, Tensor, Tensor]]) -> bool:
    return [t for t, _, _ in a] == [t for t, _, _ in b] and all(
        torch.equal(x, y) and torch.equal(v, w) for (_, x, v), (_, y, w) in zip(a, b, strict=True)
    )


THREE = replace(
    SPEC,
    first_latents=3,
    frames_per_block=3,
    cache=CacheShape(9, 3, rule="honest"),
    schedule=Schedule(steps=(1000, 750, 500, 250), shift=5.0, strength=1.0, drop=0),
)
EMBER = EmberCodec(SHAPE.latent_channels, look=4)
"""Has far fewer operations than the other autoencoders. For what only the network and its cache decide."""
EMBER.init_weights(torch.Generator().manual_seed(1))

CASES: dict[str, tuple[ModelSpec, dict[str, object]]] = {
    "fixed sinks": (SPEC, {}),
    "adaptive sinks": (replace(SPEC, cache=replace(SPEC.cache, threshold=0.3)), {"codec": EMBER}),
    "honest adaptive sinks": (
        replace(SPEC, cache=replace(SPEC.cache, threshold=0.3)),
        {"rule": Rule.HONEST, "codec": EMBER},
    ),
    "sinks of the paper": (
        replace(SPEC, cache=replace(SPEC.cache, threshold=0.9)),
        {"rule": Rule.ADAPTIVE, "codec": EMBER},
    ),
    "no batch": (replace(SPEC, cache=replace(SPEC.cache, threshold=0.3)), {"batch": False, "codec": EMBER}),
    "blocks of three": (THREE, {"rule": Rule.HONEST}),
}


@pytest.mark.parametrize("case", CASES)
def test_replayed_streams_equal_plain_ones_through_every_live_change(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, settings = CASES[case]
    plain, fast = stream(spec, **settings), stream(spec, **settings)  # type: ignore[arg-type]
    plain.whole_text = True
    chunks = 17 if spec is THREE else 20
    wanted = show(plain, chunks)
    counting = captured(fast, monkeypatch)
    captures, addresses = len(counting.replays), {n: t.data_ptr() for n, t in fast.state.tensors()}
    counting.replays[:] = [0] * captures
    assert same(wanted, show(fast, chunks))
    assert len(counting.replays) == captures, "nothing is captured on stage"
    assert all(counting.replays), "everything that was captured is replayed"
    assert {n: t.data_ptr() for n, t in fast.state.tensors()} == addresses


def test_every_number_of_rows_is_captured_at_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stream()
    captured(made, monkeypatch)
    assert isinstance(made.run, Captured)
    assert [key.rows for key in made.run.keys if key.stage == "forward"] == [1, 2, 3, 4]
    assert [key.stage for key in made.run.keys if key.stage != "forward"] == ["encode", "decode"]


def test_once_the_cache_is_full_nothing_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stream()
    captured(made, monkeypatch)
    made.set_prompt(prompt(2))
    run_directly: list[int] = []
    run = made.run

    def watched(key: object, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        def plainly(*inner: Tensor) -> Tensor:
            run_directly.append(chunk)
            return work(*inner)

        return run(key, plainly if key not in run.keys else work, *inputs)  # type: ignore[arg-type, attr-defined]

    made.run = watched
    for chunk in range(14):
        steps = steps_for(SPEC.schedule, 0.8, 2)
        x, first = made.encode(torch.rand(3, 4 if chunk else 5, SIDE, SIDE) * 2 - 1, steps)
        for _, clean in made.denoise(x, first, steps.timesteps, chunk):
            made.decode(clean)
    assert set(run_directly) == set(range(5)), "the first block of two, and one frame a chunk until six slots are full"


@pytest.mark.parametrize("vae", ["tiny", "light"])
def test_other_autoencoders_are_replayed_too(vae: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ember's, and the full one: `CASES`."""
    monkeypatch.setattr(build, "TinyShape", lambda: TinyShape(encoder=8, decoder=(16, 8, 8, 8), blocks=1))
    codec = build_codec(SPEC, vae, CPU, torch.float32, {})
    plain, fast = (stream(rule=Rule.HONEST, codec=codec) for _ in range(2))
    plain.whole_text = True
    counting = captured(fast, monkeypatch)
    assert same(show(plain), show(fast))
    assert all(counting.replays)


@pytest.mark.parametrize("mode", ["off", "graphs"])
def test_warm_up_leaves_a_new_stream(mode: str) -> None:
    made, said = stream(), []
    assert prepare(SPEC, made, mode, SIDE, SIDE, said.append) == ""
    assert said
    new = dict(stream().state.tensors())
    assert all(torch.equal(t, new[n]) for n, t in made.state.tensors() if not n.startswith("text"))
    assert (made.state.number, made.state.position, made.state.flights) == (0, 0, [])


def test_what_is_wanted_is_what_one_gets_or_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose("auto", cuda) == "graphs"
    assert choose("auto", cuda, devices=2) == choose("auto", cuda, warmup=False) == choose("auto", CPU) == "off"
    assert [choose(wanted, cuda) for wanted in ("off", "graphs", "full")] == ["off", "graphs", "full"]
    with pytest.raises(ModelError, match="one device"):
        choose("full", cuda, devices=2)
    with pytest.raises(ModelError, match="warm-up"):
        choose("graphs", cuda, warmup=False)
    with pytest.raises(ModelError, match="mps"):
        choose("graphs", torch.device("mps"))


def test_full_without_triton_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs Triton.*graphs"):
        choose("full", torch.device("cuda"))
    assert choose("graphs", torch.device("cuda")) == "graphs"
    assert choose("full", CPU) == "full", "on a CPU torch's compiler writes C++"


class Wrong(GraphChecker):
    """A backend whose replays are wrong in one of several ways."""

    def __init__(self, how: str) -> None:
        self.how = how

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        if self.how == "refuses":
            raise RuntimeError("operation not permitted when stream is capturing")
        result = super().capture(work, host)()
        if self.how == "forgets":
            return lambda: result  # gives the picture and leaves the memory alone
        return lambda: work() * (float("nan") if self.how == "no number" else 1.01)


@pytest.fixture(scope="module")
def plainly() -> list[tuple[int, Tensor, Tensor]]:
    """The show without captures."""
    plain = stream()
    plain.whole_text = True
    return show(plain)


@pytest.mark.parametrize("how", ["refuses", "forgets", "no number", "a little"])
def test_a_replay_that_is_not_the_same_is_said_and_not_used(
    how: str, plainly: list[tuple[int, Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stream()
    monkeypatch.setattr(graph_capture, "GraphChecker", lambda: Wrong(how))
    trouble = prepare(SPEC, made, "graphs", SIDE, SIDE, lambda _: None)
    assert "runs without graphs" in trouble
    assert made.run.keys == ()  # type: ignore[attr-defined]
    made.noise.reset()
    assert same(plainly, show(made))


@pytest.mark.parametrize("how", ["refuses", "a little"])
def test_a_gpu_process_does_not_go_on_after_a_failed_capture(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu(Wrong):
        outlives_failure = graph_capture.CudaGraphs.outlives_failure

    monkeypatch.setattr(graph_capture, "GraphChecker", lambda: OnGpu(how))
    with pytest.raises(CaptureError, match=r'encode cannot be captured.*compile = "off"'):
        prepare(SPEC, stream(), "graphs", SIDE, SIDE, lambda _: None)


@pytest.mark.parametrize("outlives", [True, False])
def test_memory_that_ends_before_the_capture_begins_is_a_failed_capture_on_a_gpu(outlives: bool) -> None:
    """There the engine starts again without graphs, which need more memory; the direct call would only fail again."""

    class Backend(GraphChecker):
        outlives_failure = outlives

    def work(*_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    runner = Captured(stream().state, Backend(), 1e-4)
    with pytest.raises(torch.OutOfMemoryError if outlives else CaptureError, match="out of memory"):
        runner(WorkKey("decode", 1, steady=True), work)
    assert not runner.recording


def test_what_a_capture_is_compared_with_waits_in_host_memory() -> None:
    """A second copy of the full autoencoder's state does not fit into the GPU's memory beside the first."""

    class OnGpu:
        def to(self, device: str, *, copy: bool) -> tuple[str, bool]:
            return device, copy

    assert graph_capture._to_host(OnGpu()) == ("cpu", True)  # type: ignore[arg-type, comparison-overlap]


def test_the_proof_of_a_capture_compares_a_slice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stream()
    wide: list[int] = []
    double = Tensor.double

    def watched(tensor: Tensor) -> Tensor:
        wide.append(tensor.numel())
        return double(tensor)

    runner = Captured(made.state, GraphChecker(), 1e-4)
    first = torch.randn(4, 8, 8, 8)
    monkeypatch.setattr(Tensor, "double", watched)
    runner._compare(first, first.clone())
    assert sum(wide) == 2 * first.numel()
    assert max(wide) == first[0].numel()
    with pytest.raises(CaptureError, match=r"relative error 1\.0e-02"):
        runner._compare(first, first * 1.01)
    with pytest.raises(CaptureError, match="integers"):
        runner._compare(torch.arange(3), torch.arange(3) + 1)


def test_trouble_at_warm_up_reaches_the_artist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_capture, "GraphChecker", lambda: Wrong("refuses"))
    said: list[str] = []
    with Session.open(CONFIG, progress=said.append) as session:
        assert any("not permitted" in words for words in said)
        play(session, range(5))
        assert "runs without graphs" in session.health.trouble
        play(session, range(5, 9))
        assert session.health.trouble == ""


CONFIG = Config(model="wan21-tiny", width=32, height=32, device="cpu", dtype="float32", compile="graphs")


def test_a_session_replays_saves_and_resumes(tmp_path: Path) -> None:
    late = dataclasses.replace(CONTROLS, prompt_1="fire", steps=3, anchors=1)
    with Session.open(CONFIG.model_copy(update={"compile": "off"})) as plain, Session.open(CONFIG) as fast:
        wanted = play(plain, range(29)) + play(plain, range(29, 57), late)
        found = play(fast, range(29))
        assert fast._stream.state.number > fast.spec.cache.slots, "so it was replaying"
        fast.save(tmp_path / "stream")
        found += play(fast, range(29, 57), late)
        with Session.open(CONFIG) as resumed:
            resumed.resume(tmp_path / "stream")
            again = play(resumed, range(29, 57), late)
    assert [f.seq for f in found] == [f.seq for f in wanted]
    for a, b in zip(wanted, found, strict=True):
        assert np.abs(a.pixels.astype(int) - b.pixels).max() <= 1
    assert [f.seq for f in again] == [f.seq for f in found[-len(again) :]]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(again, found[-len(again) :], strict=True))


def test_cuda_is_asked_as_torch_defines_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks with a fake CUDA only that the right calls are made in order; not that a GPU does what they say."""
    told: list[str] = []
    signature = inspect.signature(torch.cuda.graph.__init__)

    class Stream:
        def __init__(self, device: object = None, priority: int = 0) -> None:
            self.device, self.priority = device, priority

        def wait_stream(self, other: object) -> None:
            told.append("wait")

    class Graph:
        def replay(self) -> None:
            told.append("replay")

    @contextmanager
    def entered(name: str) -> Iterator[None]:
        told.append(name)
        yield
        told.append(f"end of {name}")

    def graph(*args: object, **settings: object) -> AbstractContextManager[None]:
        signature.bind(None, *args, **settings)
        return entered("capture")

    for name, fake in {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "current_stream": Stream,
        "graph": graph,
        "graph_pool_handle": lambda: (0, 1),
        "stream": lambda stream: entered("side"),
    }.items():
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, fake)

    def work() -> Tensor:
        told.append("work")
        return torch.ones(1)

    replay = graph_capture.CudaGraphs(torch.device("cuda")).capture(work)
    assert replay() is replay()
    assert " ".join(told) == "wait side work end of side wait capture work end of capture replay replay"


def test_the_graph_checker_is_as_strict_as_a_graph() -> None:
    checker = GraphChecker()
    x, box = torch.arange(6.0), {"y": torch.ones(6), "n": 2}
    replay = checker.capture(lambda: (x * box["n"] + box["y"]).relu())
    first = replay()
    x.add_(1)
    assert replay() is first
    assert torch.equal(first, x * 2 + 1)
    box["n"] = 3
    with pytest.raises(CaptureError, match="Operation 0"):
        replay()
    box["n"], held = 2, box["y"]
    box["y"] = held.clone()
    with pytest.raises(CaptureError, match="Operation 1"):
        replay()
    box["y"] = held[:1]
    with pytest.raises(CaptureError, match="Operation 1"):
        replay()
    box["y"] = held
    assert torch.equal(replay(), x * 2 + 1)


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda x: x * float(x[0]), "wait"),
        (lambda x: x * 2 if x[0] > 0 else x, "wait"),
        (lambda x: x[x > 1], "wait"),
        (lambda x: x + torch.tensor([1.0]), "sends"),
        (lambda x: torch.where(x > 1, x, 0.0), "sends"),
        (lambda x: x + torch.randn(6), "random"),
    ],
)
def test_what_a_graph_cannot_hold_is_named(work: Callable[[Tensor], Tensor], words: str) -> None:
    x = torch.arange(6.0)
    with pytest.raises(CaptureError, match=words), torch.inference_mode():
        GraphChecker().capture(lambda: work(x))


def test_tensors_of_the_host_may_be_read() -> None:
    x, started = torch.arange(6.0), torch.ones(1, dtype=torch.int64)
    replay = GraphChecker().capture(lambda: x * (2 if int(started) else 1), [started])
    assert torch.equal(replay(), x * 2)
    started.zero_()
    with pytest.raises(CaptureError, match="captured as"):
        replay()
