"""When the input is shown because the engine gives nothing; in simulated time."""

from __future__ import annotations

import itertools

import pytest

from bridge.pipeline.stall_detector import INITIAL_LIMIT_NS, MEDIAN_FACTOR, StallDetector

MS = 1_000_000


class World:
    """A source and an engine that returns chunks of frames; records at each frame whether the input is shown."""

    def __init__(self, fps: float = 30.0, chunk: int = 4, least_s: float = 0.75) -> None:
        self.detector = StallDetector(least_s)
        self.period = int(1e9 / fps)
        self.chunk = chunk
        self.now = 1000 * self.period
        self.waiting: list[int] = []
        self.busy_until = 0
        self.inside: list[int] = []
        self.dry: list[tuple[int, bool]] = []

    def run(self, seconds: float, chunk_s: float | None) -> World:
        """Go on; a chunk takes `chunk_s`, None for an engine that does not answer."""
        end = self.now + int(seconds * 1e9)
        while self.now < end:
            self.now += self.period
            if self.inside and chunk_s is not None and self.now >= self.busy_until:
                for captured in self.inside:
                    self.detector.answered(captured)
                self.inside = []
            self.detector.fed(self.now)
            self.detector.fed(self.now)
            self.waiting = [*self.waiting, self.now][-12:]  # the inbox drops the oldest
            if not self.inside and len(self.waiting) >= self.chunk and chunk_s is not None:
                self.inside, self.waiting = self.waiting[: self.chunk], self.waiting[self.chunk :]
                self.busy_until = self.now + int(chunk_s * 1e9)
            self.dry.append((self.now, self.detector.stalled))
        return self

    def changes(self, seconds: float) -> int:
        """How often the output went from input to restyled or back in the last seconds."""
        recent = [over for at, over in self.dry if at > self.now - seconds * 1e9]
        return sum(a != b for a, b in itertools.pairwise(recent))


def test_the_input_is_shown_soon_after_the_engine_stopped_and_not_before():
    world = World().run(5, 0.1)
    assert world.changes(5) == 0
    world.run(0.5, None)
    assert not world.detector.stalled
    world.run(0.3, None)
    assert world.detector.stalled


def test_the_restyled_picture_comes_back_with_the_first_new_frame():
    world = World().run(5, 0.1).run(4, None)
    since = world.now
    assert world.detector.stalled
    assert not world.detector.answered(since - 3_500 * MS), "a frame from before the stall is too old"
    assert world.detector.stalled
    assert world.detector.answered(since - 100 * MS)
    assert not world.detector.stalled


@pytest.mark.parametrize(
    ("fps", "chunk_s"), [(30, 0.3), (30, 1.0), (30, 2.0), (15, 2.0), (60, 0.02), (5, 0.1), (2, 0.1), (30, 40.0)]
)
def test_a_slow_model_or_source_does_not_flap(fps, chunk_s):
    world = World(fps).run(60 + 10 * chunk_s, chunk_s)
    assert world.changes(20 + 4 * chunk_s) == 0
    assert not world.detector.stalled


@pytest.mark.parametrize("slow_s", [0.9, 1.5, 2.5])
def test_a_model_that_becomes_slow_counts_as_stalled_for_one_chunk_only(slow_s):
    world = World().run(5, 0.1).run(60, slow_s)
    assert world.changes(65) == 2
    assert not world.detector.stalled


def test_a_model_four_times_as_slow_is_no_stall():
    world = World().run(10, 0.3).run(20, 0.3 * MEDIAN_FACTOR - 0.2)
    assert world.changes(30) == 0


def test_after_a_first_stall_of_a_length_others_of_that_length_do_not_count():
    world = World().run(5, 0.1)
    for _ in range(8):
        world.run(1.2, None).run(2, 0.1)
    assert world.changes(40) == 2


def test_a_long_stall_raises_the_limit_only_for_a_while():
    world = World().run(5, 0.1).run(6, None).run(2, 0.1)
    assert world.detector.limit_ns < 10_000 * MS
    world.run(40, 0.1)
    assert world.detector.limit_ns == 750 * MS, "the stall is no longer in the window"


@pytest.mark.parametrize("pause_s", [0.9, 3.0, 20.0])
def test_a_source_that_pauses_is_no_stall(pause_s):
    world = World().run(5, 0.1).run(0.08, 0.1)
    assert world.waiting, "the engine waits for the rest of a chunk"
    world.now += int(pause_s * 1e9)
    world.run(5, 0.1)
    assert world.changes(10 + pause_s) == 0


def test_the_first_chunk_may_take_longer():
    world = World().run(INITIAL_LIMIT_NS / 1e9 - 0.1, None)
    assert not world.detector.stalled
    world.run(0.3, None)
    assert world.detector.stalled
    world.run(2, 0.1)
    assert not world.detector.stalled
    assert world.detector.limit_ns == 750 * MS, "the first wait does not count"


def test_one_slow_chunk_does_not_raise_the_limit_to_four_times_its_length():
    world = World().run(20, 0.1).run(0.6, 0.55).run(2, 0.1)
    assert world.changes(20) == 0
    assert 750 * MS < world.detector.limit_ns < 1200 * MS


def test_another_engine_begins_with_the_initial_limit():
    world = World().run(5, 0.1).run(3, None)
    world.detector.restart()
    assert not world.detector.stalled
    assert world.detector.limit_ns == INITIAL_LIMIT_NS
