"""The largest size that holds: by invented times, and by what a real session and a real process measure."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.config import EngineProcessConfig
from bridge.process import messages
from bridge.process.engine import auto_size
from bridge.process.engine.auto_size import PIXELS, Timing, find_size, ladder, search, timing
from bridge.process.engine.choice import EngineChoice, Size, SizeTrial, check_size, size_text
from bridge.process.identity_session import IdentitySession
from bridge.process.messages import Start
from bridge.process.supervisor import EngineState, Supervisor
from engine.chunker import Chunk
from engine.config import Config
from engine.controls import Controls
from engine.errors import OutOfMemoryError, WeightsMissingError

SMALL, LARGE = (64, 48), (128, 96)
TWO = SizeTrial((SMALL, LARGE), 30.0)


def until(happened: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 120.0
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Clock:
    """A clock that a `Timed` session advances."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Timed(IdentitySession):
    """A session whose chunks take an invented time; the first of them takes longer, and gives nothing."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds, self.collected = clock, seconds, 0

    def collect_chunks(self) -> list[Chunk]:
        self.collected += 1
        self.clock.now_s += self.seconds * (5 if self.collected == 1 else 1)
        done = super().collect_chunks()
        return done if self.collected > 1 else []


def start(trial: SizeTrial = TWO, **controls: Any) -> Start:
    return Start(Config(width=64, height=48), True, False, 0.0, Controls(**controls), trial)


@pytest.mark.parametrize("aspect", [16 / 9, 4 / 3, 1.0, 9 / 16, 32 / 9, 100.0])
def test_the_ladder_has_sizes_of_the_aspect_ratio_that_every_model_takes(aspect: float) -> None:
    sizes = ladder(aspect)
    assert list(sizes) == sorted(sizes, key=lambda size: size[0] * size[1]) and len(set(sizes)) == len(sizes)
    for size in sizes:
        check_size(size_text(size))
    if aspect < 4.0:
        assert len(sizes) == len(PIXELS)
        assert all(abs(width / height / aspect - 1.0) < 0.08 for width, height in sizes)
    if aspect == 16 / 9:
        assert {(336, 192), (512, 288), (1024, 576), (1280, 720)} <= set(sizes)


@pytest.mark.parametrize("count", range(1, 9))
def test_the_search_finds_the_largest_that_holds_with_few_measurements(count: int) -> None:
    sizes = [(16 * n, 16 * n) for n in range(2, count + 2)]
    for fitting in range(count + 1):
        asked: list[Size] = []

        def measure(size: Size, fitting: int = fitting, asked: list[Size] = asked) -> Timing:
            asked.append(size)
            return Timing(0.1, 0.1, sizes.index(size) < fitting)

        chosen, found = search(sizes, measure)
        assert chosen == sizes[max(0, fitting - 1)]
        assert len(asked) == len(found) <= count.bit_length()


def test_of_two_sizes_the_larger_one_is_taken_if_its_times_hold_and_it_is_said() -> None:
    """At 30 pictures a second a chunk of one picture may take 80 % of 33 ms."""
    for large_s, chosen in ((0.020, LARGE), (0.030, SMALL)):
        clock = Clock()
        sessions: list[Size] = []

        @contextlib.contextmanager
        def opened(
            sized: Start, clock: Clock = clock, sessions: list[Size] = sessions, large_s: float = large_s
        ) -> Iterator[Any]:
            assert sized.trial is None
            sessions.append((sized.config.width, sized.config.height))
            yield Timed(clock, large_s if sessions[-1] == LARGE else 0.005)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto_size, "timing", lambda session, start, clock=clock: timing(session, start, clock))
            said: list[str] = []
            found = find_size(start(steps=1), opened, said.append)
        assert found.size == chosen
        told = f"{size_text(chosen)} is the largest size that holds 30 pictures a second and 400 ms with 1 step."
        assert found.text.startswith(f"{told} A chunk of 33 ms took ")
        assert f"{large_s * 1e3:.0f} ms at 128x96" in found.text
        assert said[0] == "measuring 128x96"


def test_a_latency_that_is_too_long_counts_as_well() -> None:
    """Four rows of the stream batch hold the rate, but the last picture is three chunks late."""
    clock = Clock()
    wanted = dataclasses.replace(start(steps=4, slo_latency=100.0))
    assert not timing(Timed(clock, 0.02), wanted, clock).holds
    assert timing(Timed(clock, 0.02), start(steps=4, slo_latency=400.0), clock).holds


def test_a_size_is_measured_for_a_bounded_time_only() -> None:
    clock = Clock()
    session = Timed(clock, 2.0)
    began_s = clock.now_s
    measured = timing(session, start(), clock)
    assert not measured.holds and clock.now_s - began_s <= 10.0 + auto_size.MOST_S and session.collected <= 3


def test_memory_that_is_too_small_is_a_measurement_and_missing_files_are_not() -> None:
    @contextlib.contextmanager
    def opened(sized: Start) -> Iterator[Any]:
        if sized.config.width > 64:
            raise OutOfMemoryError("It does not fit.")
        yield IdentitySession()

    found = find_size(start(), opened, lambda text: None)
    assert found.size == SMALL and "more memory than there is at 128x96" in found.text

    @contextlib.contextmanager
    def missing(sized: Start) -> Iterator[Any]:
        raise WeightsMissingError("No files.")
        yield

    with pytest.raises(WeightsMissingError):
        find_size(start(), missing, lambda text: None)


def test_where_none_holds_the_smallest_is_taken_and_that_is_said() -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_size, "timing", lambda session, start: timing(session, start, clock))
        found = find_size(start(), lambda sized: contextlib.nullcontext(Timed(clock, 0.5)), lambda text: None)
    assert found.size == SMALL
    assert ", so it is the smallest, 64x48. A chunk of 33 ms took 500 ms at 64x48" in found.text


def test_a_process_measures_the_identity_and_the_next_one_runs_at_the_larger_size() -> None:
    told: list[messages.EngineEvent] = []
    process = EngineProcessConfig(kind="identity", backoff_seconds=0.0)
    watched = Supervisor(Config(width=64, height=48), process, 0.0, Controls, told.append, lambda: TWO)
    watched.want(EngineChoice("identity", None))
    watched.start()
    try:
        until(lambda: watched.state is EngineState.RUNNING, f"no engine runs: {told}")
        (found,) = [event for event in told if isinstance(event, messages.SizeFound)]
        assert found.size == watched.size == LARGE, "returning a picture takes no time"
        assert watched.restarts == 0
        told.clear()
        watched.want(EngineChoice("identity", SMALL))
        until(lambda: watched.size == SMALL, "a size by hand")
        assert not [event for event in told if isinstance(event, messages.SizeFound)]
        watched.want(EngineChoice("identity", None))
        until(lambda: watched.size == LARGE, "measured again")
    finally:
        watched.stop()


def test_without_sizes_to_measure_what_ran_goes_on() -> None:
    told: list[messages.EngineEvent] = []
    process = EngineProcessConfig(kind="identity", backoff_seconds=0.0)
    watched = Supervisor(Config(width=64, height=48), process, 0.0, Controls, told.append)
    watched.want(EngineChoice("identity", None))
    watched.start()
    try:
        until(lambda: watched.state is EngineState.RUNNING, f"no engine runs: {told}")
        (failed,) = [event for event in told if isinstance(event, messages.ChangeFailed)]
        assert "no sizes to measure" in failed.reason and watched.size == SMALL
    finally:
        watched.stop()


def test_a_process_measures_a_real_model_and_the_next_one_runs_it_at_the_larger_size() -> None:
    """One picture a second, which any machine holds at both sizes."""
    told: list[messages.EngineEvent] = []
    config = Config(width=64, height=48, device="cpu", threads=1, warmup=False)
    controls = Controls(steps=1, slo_latency=60_000.0)  # longer than can be chosen: a busy machine is slow
    process = EngineProcessConfig(kind="identity", backoff_seconds=0.0)
    trial = SizeTrial((SMALL, LARGE), 1.0)
    watched = Supervisor(config, process, 0.0, lambda: controls, told.append, lambda: trial)
    watched.want(EngineChoice("wan21-tiny", None))
    watched.start()
    try:
        until(lambda: watched.state is EngineState.RUNNING, f"no engine runs: {told}")
        (found,) = [event for event in told if isinstance(event, messages.SizeFound)]
        (ready,) = [event for event in told if isinstance(event, messages.Ready)]
        assert ready.model == "wan21-tiny" and found.size == watched.size == LARGE, found.text
        assert "ms at 128x96" in found.text and not [e for e in told if isinstance(e, messages.ChangeFailed)]
    finally:
        watched.stop()
