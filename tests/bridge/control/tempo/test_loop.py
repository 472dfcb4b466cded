"""The delay-locked loop against simulated jitter, with the figures that it was chosen for."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.tempo.loop import BeatLoop
from bridge.control.tempo.state import MAX_BPM, MIN_BPM, MINUTE_NS

START_NS = 5_000_000_000_000


class Sender:
    """Sends positions at a tempo, with Gaussian jitter on each arrival."""

    def __init__(self, bpm: float, per_beat: float, jitter_ms: float, seed: int) -> None:
        self.bpm, self.per_beat, self.jitter_ns = bpm, per_beat, jitter_ms * 1e6
        self.random = random.Random(seed)
        self.true_ns, self.count = float(START_NS), 0
        self.newest = 0

    @property
    def beat(self) -> float:
        return self.count / self.per_beat

    def next(self) -> tuple[int, float]:
        """The arrival of the next message, never before the last one, and its position."""
        self.true_ns += MINUTE_NS / self.bpm / self.per_beat
        self.count += 1
        self.newest = max(self.newest, round(self.true_ns + self.random.gauss(0.0, self.jitter_ns)))
        return self.newest, self.beat


def started(sender: Sender) -> BeatLoop:
    loop = BeatLoop()
    loop.restart(*sender.next())
    return loop


def rms(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))


@pytest.mark.parametrize(("jitter_ms", "phase_ms"), [(0.0, 0.01), (1.0, 0.35), (3.0, 1.0)])
@pytest.mark.parametrize("bpm", [60.0, 120.0, 174.0])
def test_midi_clock_with_jitter_gives_a_steady_beat(bpm: float, jitter_ms: float, phase_ms: float) -> None:
    sender = Sender(bpm, 24, jitter_ms, seed=round(bpm))
    loop = started(sender)
    phases, shown = [], []
    while sender.beat < 8 * bpm / 6:  # 80 s
        loop.measure(*sender.next())
        if sender.beat > 10.0:
            # Where the loop says that the beat is at the true time of this clock
            phases.append((loop.line.beat_at(sender.true_ns) - sender.beat) * MINUTE_NS / bpm / 1e6)
            shown.append(round(loop.shown_bpm, 1))
    assert rms(phases) < phase_ms
    assert all(abs(value - bpm) <= 0.2 * bpm / 120.0 + 0.05 for value in shown), (min(shown), max(shown))
    assert max(map(abs, phases)) < 4.0 * max(phase_ms, 0.1), "never a leap"


def test_the_mean_of_intervals_would_not_do() -> None:
    """What the figures above are worth: without the loop the phase has the jitter of the messages."""
    sender = Sender(120.0, 24, 3.0, seed=1)
    raw = []
    for _ in range(2000):
        ns, _beat = sender.next()
        raw.append((ns - sender.true_ns) / 1e6)
    assert rms(raw) > 2.5


@pytest.mark.parametrize(("before", "after"), [(120.0, 130.0), (120.0, 90.0), (174.0, 87.0), (100.0, 101.0)])
@pytest.mark.parametrize("jitter_ms", [0.0, 1.0, 3.0])
def test_another_tempo_is_followed_within_two_seconds(before: float, after: float, jitter_ms: float) -> None:
    sender = Sender(before, 24, jitter_ms, seed=7)
    loop = started(sender)
    while sender.beat < 32.0:
        loop.measure(*sender.next())
    sender.bpm = after
    change_ns, settled_ns = sender.true_ns, None
    while sender.true_ns < change_ns + 8e9:
        loop.measure(*sender.next())
        away = abs(loop.bpm - after)
        if away > 0.5 + 0.6 * jitter_ms:
            settled_ns = None
        elif settled_ns is None:
            settled_ns = sender.true_ns
    assert settled_ns is not None and settled_ns - change_ns < 3e9
    assert loop.line.beat_at(sender.true_ns) == pytest.approx(sender.beat, abs=0.01)


@pytest.mark.parametrize("per_beat", [1.0, 2.0, 30.0])
def test_other_rates_of_messages_go_through_the_same_loop(per_beat: float) -> None:
    """One a beat with the jitter of a network, and a ramp that is sent at every frame."""
    sender = Sender(124.0, per_beat, 10.0, seed=3)
    loop = started(sender)
    phases = []
    while sender.beat < 160.0:
        loop.measure(*sender.next())
        if sender.beat > 48.0:
            phases.append((loop.line.beat_at(sender.true_ns) - sender.beat) * MINUTE_NS / 124.0 / 1e6)
    assert rms(phases) < 5.0
    assert loop.shown_bpm == pytest.approx(124.0, abs=1.5)


def test_messages_that_were_held_up_do_not_move_the_beat_far() -> None:
    sender = Sender(120.0, 24, 0.5, seed=11)
    loop = started(sender)
    while sender.beat < 32.0:
        loop.measure(*sender.next())
    held = [sender.next() for _ in range(5)]  # all arrive when the last of them was due
    for _, beat in held:
        loop.measure(held[-1][0], beat)
    away = (loop.line.beat_at(sender.true_ns) - sender.beat) * 500.0
    assert abs(away) < 8.0, "5 clocks, the first 83 ms late"
    for _ in range(48):
        loop.measure(*sender.next())
    assert (loop.line.beat_at(sender.true_ns) - sender.beat) * 500.0 == pytest.approx(0.0, abs=2.0)


def test_a_flood_of_positions_is_left_out() -> None:
    loop = BeatLoop()
    loop.restart(START_NS, 0.0, 120.0)
    before = loop.line
    for number in range(10_000):
        loop.measure(START_NS + number, number * 1e-7)
    assert loop.line == before


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3_000_000_000), st.floats(-1.0, 4.0)), max_size=60))
def test_whatever_comes_the_tempo_stays_in_its_range(messages: list[tuple[int, float]]) -> None:
    loop = BeatLoop()
    ns, beat = START_NS, 0.0
    loop.restart(ns, beat)
    for interval, advance in messages:
        ns, beat = ns + interval, beat + advance
        loop.measure(ns, beat)
        assert MIN_BPM * 0.999 <= loop.bpm <= MAX_BPM * 1.001
        assert MIN_BPM <= loop.shown_bpm <= MAX_BPM
        assert math.isfinite(loop.line.beat_at(ns + 1e9))
