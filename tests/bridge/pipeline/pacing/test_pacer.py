"""Pacing in simulated time."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.pipeline.pacing.latency import SECOND, LatencyMeter, quantile
from bridge.pipeline.pacing.output_clock import CREDIT_RATE, MAX_CREDIT, OutputClock, sleep_until
from bridge.pipeline.pacing.pacer import Pacer, Pick
from bridge.pipeline.pacing.source import FrameCount, RateMeter
from engine.frame import Frame

MS = 1_000_000
PIXELS = np.zeros((2, 2, 3), np.uint8)
FIRST = 1000 * SECOND  # an arbitrary origin: nothing may depend on it


@dataclass
class World:
    """A source, an engine and a publisher in simulated time.

    Attributes:
        source_fps: rate of the source; its clock starts at an arbitrary time.
        chunk: frames that the engine returns at once.
        engine_ms: time from the last frame of a chunk until all of it is finished.
        jitter_ms: arrivals are late by up to this much (uniform).
        engine_jitter_ms: the same for the engine.
        sleep_ms: the publisher wakes late by up to this much.
    """

    source_fps: float = 30.0
    chunk: int = 4
    engine_ms: float = 60.0
    jitter_ms: float = 0.0
    engine_jitter_ms: float = 0.0
    sleep_ms: float = 0.2
    output_fps: Fraction | None = None
    seed: int = 1
    picks: list[tuple[int, Pick]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.pacer = Pacer(self.output_fps)
        self.now = FIRST
        self.sent_source = 0
        self.source_time = 77 * SECOND  # the source's clock has nothing to do with ours
        self.next_frame = float(FIRST)
        self.pending: list[Frame] = []
        self.arriving: list[tuple[int, int, str, Frame]] = []
        self.order = 0
        self.engine_alive = True
        self.source_alive = True
        self.on_air = "wet"
        self.engine_free = 0

    def _later(self, when: float, where: str, frame: Frame) -> None:
        heapq.heappush(self.arriving, (int(when), self.order, where, frame))
        self.order += 1

    def run(self, seconds: float) -> World:
        end = self.now + int(seconds * SECOND)
        while True:
            tick = max(self.pacer.next_ns or self.now, self.now)
            tick += int(self.random.uniform(0, self.sleep_ms) * MS)
            if tick >= end:
                self._make_until(end)
                self._deliver_until(end)
                self.now = end
                return self
            self._make_until(tick)
            self._deliver_until(tick)
            self.now = tick
            pick = self.pacer.tick(tick, self.on_air)
            self.picks.append((tick, pick))
            if pick.new:
                self.pacer.latency.add(pick.frame.captured_ns, tick)

    def _make_until(self, when: int) -> None:
        while self.next_frame <= when:
            if self.source_alive:
                arrival = int(self.next_frame + self.random.uniform(0, self.jitter_ms) * MS)
                frame = Frame(PIXELS, pts_ns=self.source_time, captured_ns=arrival, seq=self.sent_source)
                self.sent_source += 1
                self._later(arrival, "dry", frame)
            self.source_time += int(SECOND / self.source_fps)
            self.next_frame += SECOND / self.source_fps

    def _deliver_until(self, when: int) -> None:
        while self.arriving and self.arriving[0][0] <= when:
            at, _, where, frame = heapq.heappop(self.arriving)
            if where == "wet":
                self.pacer.wet.offer(frame, at)
                continue
            self.pacer.offer_dry(frame, at)
            if self.engine_alive:
                self.pending.append(frame)
                if len(self.pending) == self.chunk:
                    spent = self.engine_ms + self.random.uniform(0, self.engine_jitter_ms)
                    self.engine_free = max(self.engine_free, at) + int(spent * MS)
                    for done in self.pending:
                        self._later(self.engine_free, "wet", done)
                    self.pending = []

    def since(self, seconds: float) -> list[tuple[int, Pick]]:
        """Picks of the last seconds."""
        return [(at, pick) for at, pick in self.picks if at > self.now - seconds * SECOND]

    def gaps(self, seconds: float) -> list[float]:
        """Milliseconds between the ticks of the last seconds."""
        times = [at for at, _ in self.since(seconds)]
        return [(b - a) / MS for a, b in itertools.pairwise(times)]

    def numbers(self, seconds: float) -> list[int]:
        return [pick.frame.seq for _, pick in self.since(seconds) if pick.frame is not None]


def in_order(numbers: list[int]) -> bool:
    return all(a <= b for a, b in itertools.pairwise(numbers))


@pytest.mark.parametrize("fps", [15.0, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0])
@pytest.mark.parametrize("chunk", [1, 4])
def test_frames_that_come_in_bursts_leave_evenly(fps, chunk):
    world = World(source_fps=fps, chunk=chunk, engine_ms=600 * chunk / fps, jitter_ms=2.0, engine_jitter_ms=4.0).run(20)
    numbers = world.numbers(10)
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    assert steps.count(1) / len(steps) > 0.98  # each frame once, in order
    period = 1000 / fps
    assert max(world.gaps(10)) < period * 1.05 + 0.5 and min(world.gaps(10)) > period * 0.95 - 0.5


def test_the_delay_is_what_is_needed_and_not_more():
    world = World(engine_ms=60.0).run(20)
    needed = 60.0 + 3 * 1000 / 30  # the first of four waits for three more
    p50, _, p99 = world.pacer.latency.quantiles_ms()
    assert needed < p50 <= p99 < needed + 4.0


def test_a_fast_engine_adds_less_than_one_period():
    world = World(source_fps=60.0, chunk=1, engine_ms=2.0, jitter_ms=1.0, engine_jitter_ms=1.0).run(20)
    assert world.pacer.latency.quantiles_ms()[0] < 1000 / 60 / 2
    assert world.pacer.latency.quantiles_ms()[2] < 1000 / 60


def test_the_rate_is_steady_over_hours():
    world = World(source_fps=1e9 / 33_333_333, sleep_ms=1.0).run(900)
    times = [at for at, _ in world.picks]
    rate = (len(times) - 1) * SECOND / (times[-1] - times[0])
    assert abs(rate / 30.0 - 1.0) < 1e-3
    assert world.pacer.repeated < 60 and world.pacer.wet.late < 60


def test_a_source_whose_clock_drifts_is_followed_without_a_repeat():
    world = World(source_fps=30.0 * 1.0005, jitter_ms=2.0).run(60)
    before = world.pacer.repeated + world.pacer.wet.late
    world.run(600)
    assert world.pacer.repeated + world.pacer.wet.late - before <= 3


@pytest.mark.parametrize(("source", "output"), [(30.0, 60), (60.0, 30), (25.0, 30), (15.0, 60), (60.0, 50)])
def test_another_output_rate_than_the_source(source, output):
    world = World(source_fps=source, output_fps=Fraction(output), jitter_ms=1.0).run(20)
    assert len(world.since(10)) == pytest.approx(10 * output, abs=2)
    numbers = world.numbers(10)
    assert in_order(numbers)
    assert len(set(numbers)) == pytest.approx(10 * min(source, output), rel=0.02)


def test_the_output_follows_the_source_to_another_rate():
    world = World(source_fps=30.0).run(8)
    world.source_fps = 60.0
    world.run(10)
    assert len(world.since(4)) == pytest.approx(240, abs=3)
    world.source_fps = 15.0
    world.run(10)
    assert len(world.since(4)) == pytest.approx(60, abs=3)
    assert in_order(world.numbers(26))


def test_a_stalled_engine_repeats_and_nothing_queues_up_behind_it():
    world = World(jitter_ms=1.0).run(10)
    world.engine_free = world.now + 700 * MS  # one stall
    world.run(2)
    assert max(world.gaps(2)) < 36.0
    calm = world.run(16).pacer.latency.quantiles_ms()
    assert calm[1] < 60 + 100 + 15  # back to what it was: nothing waits behind the stall
    assert in_order(world.numbers(26))


class Pausing(World):
    """A source that pauses now and then and gives the delayed frames in quick succession afterwards.

    `pauses`: when each begins and ends, in ns from the start; the frames' source times show the pauses as well.
    """

    pauses: tuple[tuple[float, float], ...] = ()

    def _make_until(self, when: int) -> None:
        while (at := self._at()) <= when:
            self.source_time = at
            arrival = int(at + self.random.uniform(0, self.jitter_ms) * MS)
            self._later(arrival, "dry", Frame(PIXELS, pts_ns=at, captured_ns=arrival, seq=self.sent_source))
            self.sent_source += 1
            self.next_frame += SECOND / self.source_fps

    def _at(self) -> int:
        """When the next frame is given: at its time, or 4 ms after the previous one if a pause delayed it."""
        for begin, end in self.pauses:
            if FIRST + begin <= self.next_frame < FIRST + end:
                owed = (self.next_frame - FIRST - begin) * self.source_fps / SECOND
                return int(max(self.next_frame, FIRST + end + owed * 4 * MS))
        return int(max(self.next_frame, self.source_time + 4 * MS))


def with_pauses(every_s: float, pause_ms: float) -> Pausing:
    world = Pausing(source_fps=60.0, chunk=1, engine_ms=3.0, jitter_ms=1.0, engine_jitter_ms=1.0)
    world.source_time = FIRST
    begins = [5 + every_s * number for number in range(int(30 / every_s))]
    world.pauses = tuple((at * SECOND, at * SECOND + pause_ms * MS) for at in begins)
    return world.run(5)


@pytest.mark.parametrize("pause_ms", [20, 40, 60])
def test_all_frames_that_a_pause_delayed_are_shown(pause_ms):
    world = with_pauses(12.0, pause_ms)
    late = world.pacer.wet.late
    world.run(30)
    assert world.pacer.wet.late == late
    numbers = sorted(set(world.numbers(30)))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert max(world.gaps(30)) < 1000 / 60 + 1.0  # the output itself never pauses
    assert world.pacer.latency.quantiles_ms()[0] < 1000 / 60  # rare pauses do not raise the latency


@pytest.mark.parametrize("every_s", [0.7, 2.0])
def test_frequent_pauses_do_not_make_the_output_faster(every_s):
    world = with_pauses(every_s, 40).run(30)
    assert 30 * 60 - 5 < len(world.since(30)) < 30 * 60 * (1 + CREDIT_RATE) + MAX_CREDIT + 2
    assert max(world.gaps(30)) < 1000 / 60 + 1.0
    assert in_order(world.numbers(30))


@pytest.mark.parametrize(("slow_ms", "fps"), [((20, 30), 30.0), ((30, 34), 30.0), ((20, 60), 60.0), ((20, 60), 30.015)])
def test_a_delay_that_grows_and_shrinks_again_and_again_does_not_make_the_output_faster(slow_ms, fps):
    world = World(source_fps=fps, chunk=1, engine_ms=3.0, jitter_ms=2.0, engine_jitter_ms=2.0).run(10)
    made, shown = world.sent_source, len(world.picks)
    chance = random.Random(2)
    for _ in range(60):
        world.engine_ms = 3.0
        world.run(8 * chance.uniform(0.5, 1.5))
        world.engine_ms = chance.uniform(*slow_ms)
        world.run(0.6 * chance.uniform(0.5, 1.5))
    made, shown = world.sent_source - made, len(world.picks) - shown
    assert made - 20 < shown < made * (1 + CREDIT_RATE) + MAX_CREDIT + 2


def test_an_earlier_rate_of_the_source_does_not_count():
    world = World(source_fps=60.0, output_fps=Fraction(60), chunk=1, engine_ms=3.0).run(10)
    for fps in (24.0, 60.0):
        world.source_fps = fps
        world.run(20)
        assert world.pacer._clock.credit_ns > MAX_CREDIT / 2 * SECOND / 60


def times(*steps_ms: float) -> list[Frame]:
    """Frames after these steps."""
    return [
        Frame(PIXELS, pts_ns=int(at * MS), captured_ns=int(at * MS) + 5, seq=number)
        for number, at in enumerate(itertools.accumulate(steps_ms, initial=1000.0))
    ]


@pytest.mark.parametrize(
    ("steps_ms", "frames"),
    [
        ([33.3] * 50 + [66.6] + [33.3] * 10, 62),  # one was lost
        ([33.3] * 50 + [100.0, 4.0, 4.0, 25.0] + [33.3] * 10, 64),  # three were delayed
        ([33.3167] * 1000, 1000),  # its clock is faster than its nominal rate
        ([30.3, 36.3] * 500, 1000),  # jitter
        ([0.0] * 10, 0),  # times that do not advance
    ],
)
def test_frames_are_counted_in_the_sources_own_period(steps_ms, frames):
    count = FrameCount()
    made = 0.0
    for frame in times(*steps_ms):
        count.add(frame, Fraction(30000, 1001))
        made += count.take() or 0.0
    assert made == pytest.approx(frames, abs=0.15 + frames / 1200)
    assert not count.any


def test_a_jump_of_the_sources_time_counts_nothing():
    count = FrameCount()
    first, *_, last = times(33.3, 5000.0)
    count.add(first, Fraction(30))
    count.take()
    count.add(last, Fraction(30))
    assert count.any
    assert count.take() is None
    count.add(last, None)
    assert count.take() is None


def test_the_delay_follows_the_speed_of_the_engine():
    world = World().run(10)
    short = world.pacer.wet.delay_ns
    world.engine_ms = 110.0
    world.run(6)
    assert world.pacer.wet.delay_ns - short == pytest.approx(50 * MS, abs=5 * MS)
    smooth = [pick.new for _, pick in world.since(2)]
    assert sum(smooth) / len(smooth) > 0.98
    world.engine_ms = 60.0
    world.run(12)
    assert world.pacer.wet.delay_ns == pytest.approx(short, abs=5 * MS)


def test_an_engine_that_is_too_slow_keeps_the_clock_steady():
    world = World(chunk=1, engine_ms=90.0)  # 11 of 30 frames a second; its input queue is not part of this test
    for _ in range(100):
        world.run(0.1)
        world.engine_free = min(world.engine_free, world.now + 90 * MS)
    assert max(world.gaps(5)) < 36.0
    assert in_order(world.numbers(9))


def test_bypass_is_on_air_at_the_next_tick():
    world = World(engine_ms=200.0).run(10)
    world.on_air = "dry"
    behind = world.picks[-1][1].frame.seq
    tick = world.pacer.next_ns
    world.run((tick - world.now) / SECOND + 0.003)
    at, pick = world.picks[-1]
    assert at - tick < 2 * MS
    assert pick.frame.seq - behind >= 9  # the input of now, not of 300 ms ago
    world.run(5)
    assert world.pacer.latency.quantiles_ms()[0] < 34.0
    dry = world.numbers(3)
    assert [b - a for a, b in itertools.pairwise(dry)].count(1) / len(dry) > 0.95
    world.on_air = "wet"
    world.run(0.05)
    assert world.picks[-1][1].frame.seq < dry[-1]  # back to the model's latency


def test_before_the_first_restyled_frame_the_input_is_shown():
    world = World()
    world.engine_alive = False
    world.run(2)
    assert world.picks[-1][1].frame is not None
    world.engine_alive = True
    world.run(2)
    world.pacer.forget("wet")
    world.engine_alive = False
    world.arriving = [entry for entry in world.arriving if entry[2] == "dry"]
    world.run(0.5)
    assert world.sent_source - world.picks[-1][1].frame.seq < 6


def test_a_lost_source_holds_the_last_picture_at_the_same_rate():
    world = World().run(10)
    world.source_alive = False
    world.run(5)
    assert max(world.gaps(5)) < 36.0
    assert len(set(world.numbers(3))) == 1
    world.source_alive = True
    world.run(5)
    assert len(set(world.numbers(2))) > 55


@pytest.mark.parametrize("jump_s", [-3600.0, -5.0, 5.0, 3600.0 * 24])
def test_a_source_clock_that_jumps_starts_a_new_stream(jump_s):
    world = World(jitter_ms=1.0).run(10)
    world.source_time += int(jump_s * SECOND)
    world.run(6)
    assert max(world.gaps(6)) < 36.0
    new = [pick.new for _, pick in world.since(2)]
    assert sum(new) / len(new) > 0.97
    assert world.pacer.latency.quantiles_ms()[0] < 190.0


@pytest.mark.parametrize("jump_s", [-100.0, 0.5, 100.0])
def test_a_local_clock_that_jumps_starts_a_new_grid(jump_s):
    world = World().run(5)
    world.now += int(jump_s * SECOND)
    world.next_frame += jump_s * SECOND
    world.arriving = []
    world.pending = []
    world.engine_free = 0
    world.run(8)
    assert max(world.gaps(4)) < 36.0
    new = [pick.new for _, pick in world.since(2)]
    assert sum(new) / len(new) > 0.97


def test_irregular_source_times_do_not_stop_the_clock():
    world = World(source_fps=30.0, jitter_ms=30.0, chunk=1, engine_ms=5.0).run(20)
    assert max(world.gaps(10)) < 36.0
    new = [pick.new for _, pick in world.since(10)]
    assert sum(new) / len(new) > 0.97  # the delay absorbs 30 ms of jitter


def test_source_times_that_do_not_advance_are_replaced_by_arrival_times():
    pacer = Pacer(Fraction(30))
    shown = 0
    for number in range(90):
        now = FIRST + number * SECOND // 30
        pacer.offer_dry(Frame(PIXELS, pts_ns=0, captured_ns=now, seq=number), now)
        shown += pacer.tick(now, "dry").new
    assert shown > 80


def test_a_missed_tick_is_skipped_not_caught_up():
    clock = OutputClock(Fraction(50))
    clock.next_ns = FIRST
    assert clock.advance(FIRST) == FIRST + 20 * MS
    late = FIRST + 20 * MS + 70 * MS
    assert clock.advance(late) == FIRST + 100 * MS  # on the grid, once


def test_a_rate_of_60000_1001_has_no_rounding_drift():
    clock = OutputClock(Fraction(60000, 1001))
    clock.next_ns = FIRST
    for _ in range(60000):
        clock.advance(clock.next_ns)
    assert clock.next_ns == FIRST + 1001 * SECOND


@given(
    st.lists(st.tuples(st.integers(-SECOND, 3 * SECOND), st.integers(0, 10**12), st.booleans()), max_size=60),
    st.sampled_from([None, Fraction(30), Fraction(60000, 1001)]),
)
@settings(max_examples=150, deadline=None)
def test_the_next_tick_is_near_whatever_the_times_are(steps, fps):
    pacer, now = Pacer(fps), FIRST
    for seq, (step, pts, wet) in enumerate(steps):
        now += step
        frame = Frame(PIXELS, pts_ns=pts, captured_ns=now, seq=seq)
        pacer.offer_dry(frame, now)
        if wet:
            pacer.wet.offer(frame, now)
        pacer.tick(now, "wet" if wet else "dry")
        assert 0 < pacer.next_ns - now <= 3 * SECOND / pacer.fps
        assert pacer.wet.waiting + pacer.dry.waiting <= 2 * len(steps)


@pytest.mark.parametrize("rate", [12, 15, 24, 25, 30, 50, 60])
@pytest.mark.parametrize("jitter_ms", [0, 25])
def test_a_rate_is_measured_in_spite_of_jitter(rate, jitter_ms):
    meter, chance, seen = RateMeter(), random.Random(3), set()
    for number in range(rate * 20):
        meter.add(int(number * SECOND / rate) + chance.randrange(max(1, min(jitter_ms, 900 // rate) * MS)))
        if number > rate * 2:
            seen.add(meter.fps)
    assert len(seen) == 1
    assert float(seen.pop()) == pytest.approx(rate, rel=0.02)


def test_a_source_that_loses_frames_is_not_taken_for_a_slower_one():
    meter, chance = RateMeter(), random.Random(5)
    for number in range(600):
        if chance.random() > 0.1:
            meter.add(number * SECOND // 30)
        if number > 150:
            assert float(meter.fps) == pytest.approx(30, rel=0.002)


@pytest.mark.parametrize("nominal", [24000 / 1001, 30000 / 1001, 30.0, 60000 / 1001, 60.0, 37.5])
def test_a_nominal_rate_is_used_as_long_as_it_is_plausible(nominal):
    meter, chance = RateMeter(), random.Random(4)
    for number in range(400):
        if chance.random() > 0.15:  # drops
            meter.add(int(number * SECOND / nominal) + chance.randrange(10 * MS), nominal)
    assert float(meter.fps) == pytest.approx(nominal, rel=1e-6)
    for number in range(400, 800, 2):  # it announces a rate and gives half of it
        meter.add(int(number * SECOND / nominal), nominal)
    assert nominal / 2 * 0.97 <= float(meter.fps) <= nominal / 2 * 1.1


def test_latency_quantiles_are_nearest_ranks():
    meter = LatencyMeter()
    for number in range(1, 101):
        meter.add(FIRST, FIRST + number * MS)
    assert meter.quantiles_ms() == (50.0, 95.0, 99.0)
    assert quantile([5], 0.99) == 5
    assert LatencyMeter().quantiles_ms() == (0.0, 0.0, 0.0)


def test_sleep_until_does_not_come_early():
    when = time.monotonic_ns() + 20 * MS
    sleep_until(when)
    assert time.monotonic_ns() >= when
    sleep_until(when)
