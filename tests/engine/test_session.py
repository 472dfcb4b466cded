"""Sessions: frames in and out, live controls, reset, save and resume."""

from __future__ import annotations

import dataclasses
import doctest
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import engine.session
from engine.config import Config
from engine.controls import Controls
from engine.errors import ModelError
from engine.frame import Frame, PixelFormat
from engine.models import registry
from engine.models.spec import CacheShape, Schedule
from engine.runtime.graph_checker import HOST_READS
from engine.runtime.transfers import PendingCopy
from engine.schedule import Plan
from engine.session import Session
from engine.stream import saved_state

CONFIG = Config(model="wan21-tiny", width=32, height=32, device="cpu")
CONTROLS = Controls(prompt_1="a forest in autumn", strength=0.8, steps=2)


def frame(n: int, size: int = 32) -> Frame:
    """A moving gradient."""
    ramp = np.arange(size)
    pixels = np.stack(
        [
            ramp[:, None] * 7 + n * 3 + 0 * ramp,
            ramp[None] * 5 + n * 11 + 0 * ramp[:, None],
            ramp[:, None] + ramp[None] + n * 17,
        ],
        axis=-1,
    )
    return Frame(
        (pixels % 256).astype(np.uint8), pts_ns=n * 40_000_000, captured_ns=7 * n, seq=n, metadata={"n": str(n)}
    )


def play(session: Session, numbers: range, controls: Controls = CONTROLS) -> list[Frame]:
    done = []
    for n in numbers:
        session.feed(frame(n))
        if session.ready:
            done += session.step(controls)
    return done


def same(a: list[Frame], b: list[Frame]) -> bool:
    return [f.seq for f in a] == [f.seq for f in b] and all(
        np.array_equal(x.pixels, y.pixels) for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def session() -> Session:
    with Session.open(CONFIG) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    if "session" in request.fixturenames:
        shared = request.getfixturevalue("session")
        shared.flush()


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(engine.session)
    assert result.attempted >= 10
    assert result.failed == 0


def test_every_frame_comes_out_once_with_what_it_came_with(session: Session) -> None:
    done = play(session, range(23)) + session.flush()
    assert [f.seq for f in done] == list(range(23))
    for out in done:
        came = frame(out.seq)
        assert (out.pts_ns, out.captured_ns, out.metadata) == (came.pts_ns, came.captured_ns, came.metadata)
        assert out.pixels.shape == (32, 32, 3)
        assert out.format is PixelFormat.RGB


def test_the_picture_is_restyled_and_depends_on_prompt_seed_and_strength(session: Session) -> None:
    def run(**changes: object) -> list[Frame]:
        session.flush()
        return play(session, range(13), dataclasses.replace(CONTROLS, **changes)) + session.flush()

    plain = run()
    assert same(plain, run())
    for changes in ({"prompt_1": "the sea"}, {"seed": 5}, {"strength": 0.5}, {"steps": 1}):
        assert not same(plain, run(**changes)), changes
    assert same(plain, run())


class LateTransfer:
    """Copies only when the copy is waited for, as on a slow bus, and checks that the source has not changed."""

    def send(self, source: Tensor) -> PendingCopy:
        return LateCopy(source)


class LateCopy:
    arrived = False

    def __init__(self, source: Tensor) -> None:
        self._source, self._sent = source, source.clone()

    def wait(self) -> Tensor:
        assert torch.equal(self._source, self._sent), "written to while it was on its way"
        return self._source.clone()


class NothingRead(TorchDispatchMode):
    """Fails if the host reads a number for which it would have to wait for a GPU."""

    def __init__(self, host: list[Tensor]) -> None:
        super().__init__()
        self._host = {tensor.data_ptr() for tensor in host}
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.operations += 1
        if name in HOST_READS:
            assert all(t.data_ptr() in self._host for t in args if isinstance(t, Tensor)), f"{name} waits"
        return func(*args, **(kwargs or {}))


def test_chunks_can_be_begun_before_the_last_ones_frames_are_collected() -> None:
    def changing(n: int) -> Controls:
        return dataclasses.replace(CONTROLS, steps=1 + n // 9 % 3, strength=0.2 + n % 7 / 10, resets=n // 24)

    with Session.open(CONFIG) as session:
        plain, noises = [], []
        for n in range(45):
            session.feed(frame(n))
            if session.ready:
                plain += session.step(changing(n))
                noises.append(session.health.noise)
        plain += session.flush()
    with Session.open(CONFIG) as session:
        session._up = session._down = LateTransfer()
        ahead, found = [], []
        begun = 0
        for n in range(45):
            session.feed(frame(n))
            if session.ready:
                assert session.arrived == (begun == 0)
                session.begin(changing(n))
                begun += 1
                assert not session.arrived
                if begun > 1:
                    ahead += session.collect()
                    found.append(session.health.noise)
        ahead += session.collect()
        found.append(session.health.noise)
        assert session.arrived
        assert session.collect() == []
        ahead += session.flush()
    assert same(plain, ahead)
    assert noises == found
    assert len(set(noises)) > 3


def test_to_begin_a_chunk_the_host_waits_for_nothing(session: Session) -> None:
    state = session._stream.state
    session._stream.whole_text = True  # as on a GPU; on a CPU a prompt's length is looked at
    try:
        play(session, range(33))
        for n in range(33, 37):
            session.feed(frame(n))
        with NothingRead([state.encoder.started, state.decoder.started]) as watched:
            session.begin(dataclasses.replace(CONTROLS, prompt_1="the sea", steps=1))
        assert watched.operations > 100
        assert len(session.collect()) >= 4
    finally:
        session._stream.whole_text = False


def test_a_size_that_has_to_be_measured_is_no_size_for_a_session() -> None:
    with pytest.raises(ModelError, match="Set width and height"):
        Session.open(Config(model="ember", size="auto"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_large_model_does_not_run_on_a_processor_in_silence() -> None:
    with pytest.raises(ModelError, match=r"needs a GPU with \d+\.\d GiB") as raised:
        Session.open(Config(model="wan21-1.3b", device="auto"), files={})
    assert "tidecast doctor" in raised.value.remedy


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_a_session_on_a_cpu_keeps_its_memory() -> None:
    """Without the setting, memory that is freed and wanted again is cleared again, page by page: a fault each.

    The process needs no torch, which takes its tensors' memory from the C library as this does.
    """
    code = """
import ctypes, resource
from engine.runtime import host_memory
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
def faults():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [library.malloc(ctypes.c_size_t(2**23)) for _ in range(16)]
        for address in held:
            ctypes.memset(address, 1, 2**23)
        for address in held:
            library.free(ctypes.c_void_p(address))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
left = faults()
host_memory.keep_memory()
print(left, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
    left, kept = map(int, done.stdout.split())
    assert kept < 0.75 * left


def test_frames_of_other_sizes_and_channel_orders_are_taken(session: Session) -> None:
    bgra = np.zeros((50, 80, 4), np.uint8)
    bgra[..., 0], bgra[..., 3] = 250, 255
    for n in range(5):
        session.feed(Frame(bgra, format=PixelFormat.BGRA, seq=n))
    done = session.step(dataclasses.replace(CONTROLS, strength=0.0))
    assert [f.pixels.shape for f in done] == [(32, 32, 3)] * 5
    assert (done[0].pixels == (0, 0, 250)).all()


def test_strength_zero_gives_the_input_back_and_the_way_there_is_continuous(session: Session) -> None:
    done = play(session, range(21), dataclasses.replace(CONTROLS, strength=0.0))
    assert len(done) >= 13
    assert all(np.array_equal(out.pixels, frame(out.seq).pixels) for out in done)

    def distance(strength: float) -> float:
        session.flush()
        out = play(session, range(13), dataclasses.replace(CONTROLS, strength=strength)) + session.flush()
        return float(np.mean([np.abs(f.pixels.astype(int) - frame(f.seq).pixels).mean() for f in out]))

    distances = [distance(s) for s in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)]
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    assert distances[1] < 0.02 * distances[-1]


def test_the_delay_is_the_same_at_every_strength(session: Session) -> None:
    def seen(strength: float) -> list[int]:
        session.flush()
        return [f.seq for f in play(session, range(25), dataclasses.replace(CONTROLS, strength=strength))]

    assert seen(0.0) == seen(1.0) == seen(0.8)


def test_steps_go_up_and_down_without_loss(session: Session) -> None:
    done, lags = [], []
    for n in range(5 + 4 * 29):
        session.feed(frame(n))
        if session.ready:
            chunk = (n - 4) // 4
            done += session.step(dataclasses.replace(CONTROLS, steps=(2, 4, 1, 3, 3, 4, 2, 1, 1, 4)[chunk // 3]))
            lags.append((n - done[-1].seq) // 4)
    assert [f.seq for f in done] == list(range(len(done)))
    assert max(lags) == 3
    assert min(lags[21:27]) == 0, "one step has no lag"


def test_a_plan_lowers_the_steps_but_never_raises_them(session: Session) -> None:
    play(session, range(4))
    session.feed(frame(4))
    session.step(dataclasses.replace(CONTROLS, steps=3), Plan(rows=1, steps=1))
    assert session.health.steps == 1
    for n in range(5, 9):
        session.feed(frame(n))
    session.step(dataclasses.replace(CONTROLS, steps=2), Plan(rows=1, steps=4))
    assert session.health.steps == 2


def test_reset_equals_new(session: Session) -> None:
    first = play(session, range(21)) + session.flush()
    again = play(session, range(21)) + session.flush()
    assert same(first, again)
    with Session.open(CONFIG) as new:
        assert same(first, play(new, range(21)) + new.flush())


def test_the_reset_control_loses_no_frame(session: Session) -> None:
    done = play(session, range(21), dataclasses.replace(CONTROLS, steps=4))
    done += play(session, range(21, 60), dataclasses.replace(CONTROLS, steps=4, resets=1)) + session.flush()
    assert [f.seq for f in done] == list(range(60))


def test_anchor_and_prompt_keep_the_history(session: Session) -> None:
    plain = play(session, range(41)) + session.flush()
    play(session, range(21))
    anchored = play(session, range(21, 41), dataclasses.replace(CONTROLS, anchors=1))
    assert [f.seq for f in anchored] == [f.seq for f in plain if f.seq >= anchored[0].seq][: len(anchored)]
    assert not same(anchored[-4:], [f for f in plain if f.seq in {g.seq for g in anchored[-4:]}])


@pytest.mark.parametrize("batch", [True, False])
def test_a_saved_and_resumed_run_equals_one_that_was_not(batch: bool, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"batch": batch})
    late = dataclasses.replace(CONTROLS, prompt_1="the sea", prompt_seconds=1.0, steps=3)
    with Session.open(config) as whole:
        play(whole, range(19))
        play(whole, range(19, 31), late)
        rest = play(whole, range(31, 60), late) + whole.flush()
    with Session.open(config) as before:
        play(before, range(19))
        play(before, range(19, 31), late)
        before.save(tmp_path / "stream.safetensors")
    with Session.open(config) as after:
        after.resume(tmp_path / "stream.safetensors")
        assert same(rest, play(after, range(31, 60), late) + after.flush())


def test_a_session_with_begun_chunks_is_not_saved(session: Session, tmp_path: Path) -> None:
    done = play(session, range(5))
    for n in range(5, 9):
        session.feed(frame(n))
    session.begin(CONTROLS)
    with pytest.raises(ModelError, match="Not every begun step has been collected") as refused:
        session.save(tmp_path / "stream")
    assert "collect" in refused.value.remedy
    assert list(tmp_path.iterdir()) == []
    done += session.collect()
    session.save(tmp_path / "stream")
    assert [f.seq for f in done + session.flush()] == list(range(9))


def test_resuming_drops_begun_chunks_unless_it_is_refused(session: Session, tmp_path: Path) -> None:
    play(session, range(9))
    session.save(tmp_path / "stream")
    wanted = play(session, range(9, 30)) + session.flush()
    done = play(session, range(5))
    for n in range(5, 9):
        session.feed(frame(n))
    session.begin(CONTROLS)
    with pytest.raises(ModelError):
        session.resume(tmp_path / "nothing")
    assert [f.seq for f in done + session.collect() + session.flush()] == list(range(9))
    play(session, range(100, 105))
    for n in range(105, 111):
        session.feed(frame(n))
    session.begin(CONTROLS)
    session.resume(tmp_path / "stream")
    assert same(wanted, play(session, range(9, 30)) + session.flush())


def test_resuming_something_else_says_so(session: Session, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a saved stream"):
        session.resume(tmp_path / "nothing")
    play(session, range(9))
    session.save(tmp_path / "stream")
    with (
        Session.open(CONFIG.model_copy(update={"width": 64})) as wider,
        pytest.raises(ModelError, match="does not fit"),
    ):
        wider.resume(tmp_path / "stream")


def test_deferred_prompts_are_listed_and_taken_when_they_are_there() -> None:
    with Session.open(CONFIG, defer_prompts=True) as session:
        play(session, range(5))
        assert session.health.prompt == "a forest in autumn"
        sea = dataclasses.replace(CONTROLS, prompt_1="the sea")
        play(session, range(5, 9), sea)
        assert session.health.missing_prompts == ("the sea",)
        assert session.health.prompt == "a forest in autumn"
        session.encode_prompt("the sea")
        play(session, range(9, 13), sea)
        assert session.health.missing_prompts == ()
        assert session.health.prompt == "the sea"


def test_health_tells_noise_steps_and_stage_times(session: Session) -> None:
    play(session, range(9))
    health = session.health
    assert 0.7 <= health.noise <= 0.8
    assert health.steps == 2
    assert set(health.stages) == {"upload", "encode", "dit", "decode", "download"}
    assert health.stages["dit"] > 0
    assert health.in_flight == 1


def test_an_unknown_model_or_device_names_what_there_is() -> None:
    with pytest.raises(ModelError, match="wan21-tiny"):
        Session.open(Config(model="nothing"))
    with pytest.raises(ModelError, match="device"):
        Session.open(Config(model="wan21-tiny", device="toaster"))


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.integers(1, 4),
        "strength": st.floats(0, 1),
        "motion": st.floats(0, 1),
        "seed": st.integers(0, 3),
        "prompt_1": st.sampled_from(["", "a forest", "the sea at night"]),
        "weight_2": st.floats(0, 1),
        "prompt_seconds": st.floats(0, 2),
        "resets": st.integers(0, 2),
        "anchors": st.integers(0, 2),
    },
)


@settings(max_examples=25, deadline=None)
@given(st.lists(CHANGES, min_size=3, max_size=14), st.booleans())
def test_any_controls_in_any_order_lose_and_reorder_nothing(changes: list[dict[str, object]], unbatched: bool) -> None:
    config = CONFIG.model_copy(update={"batch": not unbatched})
    if unbatched not in SHARED:
        SHARED[unbatched] = Session.open(config)
    session = SHARED[unbatched]
    session.flush()
    controls, done, fed = CONTROLS, [], 0
    for change in changes:
        controls = dataclasses.replace(controls, prompt_2="rain", **change)
        for _ in range(session.frames_needed):
            session.feed(frame(fed))
            fed += 1
        done += session.step(controls)
        assert np.isfinite(session.health.noise)
    done += session.flush()
    assert [f.seq for f in done] == list(range(fed))
    assert all(
        bool(tensor.isfinite().all()) for _, tensor in session._stream.state.tensors() if tensor.is_floating_point()
    )


SHARED: dict[bool, Session] = {}


def test_models_that_denoise_three_latent_frames_together_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(
        registry.get("wan21-tiny"),
        name="blocks",
        first_latents=3,
        frames_per_block=3,
        cache=CacheShape(9, 3, rule="honest"),
        schedule=Schedule(steps=(1000, 750, 500, 250), shift=5.0, strength=1.0, drop=0),
    )
    monkeypatch.setitem(registry.REGISTRY, "blocks", spec)
    with Session.open(CONFIG.model_copy(update={"model": "blocks"})) as session:
        assert session.frames_needed == 9
        done = play(session, range(9 + 12 * 5), dataclasses.replace(CONTROLS, anchors=0))
        assert session.frames_needed == 12
        done += session.flush()
    assert [f.seq for f in done] == list(range(9 + 12 * 5))


def test_a_stream_that_another_version_saved_is_refused(tmp_path: Path) -> None:
    with Session.open(CONFIG) as session:
        for n in range(9):
            session.feed(frame(n))
            if session.ready:
                session.step(CONTROLS)
        session.save(tmp_path / "stream")
        tensors, facts = saved_state.read(tmp_path / "stream")
        saved_state.write(tmp_path / "older", tensors, {**facts, "version": saved_state.VERSION - 1})
        with pytest.raises(ModelError, match="another version of Tidecast saved; this one reads"):
            session.resume(tmp_path / "older")
        for flight in facts["flights"]:
            if flight["chunk"] is not None:
                flight["chunk"]["controls"]["bypass"] = False  # a control that the engine does not have any more
        saved_state.write(tmp_path / "stream", tensors, facts)
        with pytest.raises(ModelError, match="damaged, or another version of Tidecast"):
            session.resume(tmp_path / "stream")
