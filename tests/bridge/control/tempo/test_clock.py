"""The beat by its sources, in simulated time."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.tempo.clock import Clock
from bridge.control.tempo.midi_port import PortChoice
from bridge.control.tempo.state import MAX_BPM, MIN_BPM, MINUTE_NS, Line, State
from engine.errors import ControlError

START_NS = 3_000_000_000_000
SECOND = 1_000_000_000


def clock_at(source: str = "internal", bpm: float = 120.0) -> Clock:
    clock = Clock(START_NS, bpm)
    clock.choose(source, START_NS)
    return clock


class Sequencer:
    """Sends MIDI clock as a sequencer does; the clocks go on while it is stopped if `always` says so."""

    def __init__(self, clock: Clock, bpm: float = 120.0, jitter_ms: float = 0.0, seed: int = 1) -> None:
        self.clock, self.bpm, self.jitter_ns = clock, bpm, jitter_ms * 1e6
        self.random = random.Random(seed)
        self.due_ns = float(START_NS)
        self.newest = START_NS

    def clocks(self, count: int, deliver: bool = True) -> None:
        for _ in range(count):
            self.due_ns += MINUTE_NS / self.bpm / 24
            self.newest = max(self.newest, round(self.due_ns + self.random.gauss(0.0, self.jitter_ns)))
            if deliver:
                self.clock.midi("clock", 0, self.newest)

    def say(self, message: str, value: int = 0) -> None:
        self.clock.midi(message, value, self.newest)

    @property
    def beat(self) -> float:
        """Where the clock says that the beat is at the time at which the last clock was due."""
        return self.clock.tempo.beat_at(self.due_ns)


def test_the_internal_beat_is_known_for_any_time() -> None:
    tempo = clock_at(bpm=125.0).tempo
    assert tempo.beat_at(START_NS + 48 * SECOND) == pytest.approx(100.0)
    assert tempo.ns_at(100.0) == pytest.approx(START_NS + 48 * SECOND)
    assert tempo.bar_at(START_NS + SECOND) == pytest.approx(125 / 60 / 4)
    assert tempo.next_boundary(START_NS, 4.0) == 0.0
    assert tempo.next_boundary(START_NS + 1_000_000, 4.0) == 4.0


def test_another_tempo_goes_on_from_the_same_position() -> None:
    clock = clock_at()
    at = START_NS + 3 * SECOND + 123_456_789
    before = clock.tempo.beat_at(at)
    clock.set_bpm(174.0, at)
    assert clock.tempo.beat_at(at) == pytest.approx(before)
    assert clock.tempo.beat_at(at + 60 * SECOND) == pytest.approx(before + 174.0)


# MIDI clock


@pytest.mark.parametrize("bpm", [60.0, 120.0, 174.0])
def test_midi_clock_with_3_ms_of_jitter(bpm: float) -> None:
    clock = clock_at("midi")
    sender = Sequencer(clock, bpm, jitter_ms=3.0, seed=round(bpm))
    sender.say("start")
    sender.clocks(24 * 12)
    phases, shown = [], []
    for number in range(24 * 12, 24 * 240):
        sender.clocks(1)
        phases.append((sender.beat - number / 24) * MINUTE_NS / bpm / 1e6)
        shown.append(round(clock.tempo.shown_bpm, 1))
    assert math.sqrt(sum(p * p for p in phases) / len(phases)) < 1.0
    assert max(abs(value - bpm) for value in shown) <= 0.2 * max(1.0, bpm / 120.0) + 0.05
    assert clock.tempo.state is State.RUNNING


def test_start_stop_continue_and_song_position_are_exact() -> None:
    clock = clock_at("midi")
    sender = Sequencer(clock)
    sender.clocks(50)  # the clock runs while the song is not started
    sender.say("start")
    sender.clocks(1)
    assert sender.beat == pytest.approx(0.0, abs=1e-3)
    sender.clocks(24 * 9 + 5)
    assert sender.beat == pytest.approx(9 + 5 / 24, abs=1e-3)
    sender.say("stop")
    stopped = clock.tempo
    assert (stopped.state, stopped.moving) == (State.STOPPED, False)
    assert stopped.beat_at(START_NS + 10_000 * SECOND) == pytest.approx(9 + 6 / 24)
    sender.clocks(100)
    assert clock.tempo.beat_at(sender.newest) == pytest.approx(9 + 6 / 24), (
        "clocks of a stopped song tell the tempo only"
    )
    sender.say("continue")
    sender.clocks(1)
    assert sender.beat == pytest.approx(9 + 6 / 24, abs=1e-3)
    sender.clocks(24)
    assert sender.beat == pytest.approx(10 + 6 / 24, abs=1e-3)
    sender.say("stop")
    sender.say("songpos", 4 * 64)  # sixteenths: beat 64
    assert clock.tempo.beat_at(sender.newest) == 64.0
    sender.say("continue")
    sender.clocks(25)
    assert sender.beat == pytest.approx(65.0, abs=1e-3)
    assert clock.tempo.bar_at(sender.due_ns) == pytest.approx(0.25, abs=1e-3)
    sender.say("songpos", 8)  # while it plays: from the next clock on
    sender.clocks(1)
    assert sender.beat == pytest.approx(2.0, abs=1e-3)


def test_a_sender_whose_clock_stops_with_the_song_starts_at_its_first_clock() -> None:
    clock = clock_at("midi", 120.0)
    sender = Sequencer(clock, 150.0)
    sender.say("start")
    sender.clocks(1)
    assert clock.tempo.beat_at(sender.newest) == 0.0
    sender.clocks(47)
    assert sender.beat == pytest.approx(47 / 24, abs=1e-3)
    assert clock.tempo.shown_bpm == pytest.approx(150.0, abs=0.1)
    sender.say("stop")
    sender.due_ns += 60 * SECOND
    sender.newest = round(sender.due_ns)
    clock.check(sender.newest)
    assert clock.tempo.state is State.STOPPED, "a stopped song is not lost"
    sender.bpm = 90.0
    sender.say("continue")
    sender.clocks(48)
    assert sender.beat == pytest.approx((48 + 47) / 24, abs=0.02)
    assert clock.tempo.shown_bpm == pytest.approx(90.0, abs=0.5)


def test_a_clock_that_is_heard_in_the_middle_of_a_song_keeps_the_count() -> None:
    clock = clock_at("midi", 120.0)
    sender = Sequencer(clock)
    sender.due_ns += 10 * SECOND  # beat 20 of our own count
    sender.clocks(1)
    assert sender.beat == pytest.approx(20.0, abs=0.06)
    sender.clocks(24)
    assert sender.beat == pytest.approx(21.0, abs=0.06)


def test_silence_keeps_the_beat_running_and_is_said_after_two_seconds() -> None:
    clock = clock_at("midi")
    assert clock.tempo.state is State.WAITING
    sender = Sequencer(clock, 128.0)
    sender.say("start")
    sender.clocks(24 * 8 + 1)
    assert clock.check(sender.newest + 1_900_000_000) is State.RUNNING
    assert clock.check(sender.newest + 2_100_000_000) is State.LOST
    assert clock.tempo.beat_at(sender.newest + 60 * SECOND) == pytest.approx(8 + 128.0, abs=0.05)
    sender.clocks(24 * 16, deliver=False)  # unplugged
    sender.clocks(24 * 2)  # and back: in phase and in the count
    assert clock.tempo.state is State.RUNNING
    assert sender.beat == pytest.approx(8 + 16 + 2, abs=0.01)


def test_a_machine_that_stalls_counts_the_clocks_that_it_held_up() -> None:
    clock = clock_at("midi")
    sender = Sequencer(clock)
    sender.say("start")
    sender.clocks(24 * 8 + 1)
    sender.clocks(12, deliver=False)
    for _ in range(12):  # they all arrive a quarter of a second late, at once
        clock.midi("clock", 0, sender.newest + 1_000_000)
    assert sender.beat == pytest.approx(8.5, abs=0.01), "the beat went on meanwhile"
    sender.clocks(24)
    assert sender.beat == pytest.approx(9.5, abs=0.01)


@pytest.mark.parametrize("bpm", [20.0, 33.0, 999.0])
def test_the_ends_of_the_range_are_followed_from_the_other_end(bpm: float) -> None:
    clock = clock_at("midi", 300.0 if bpm < 100.0 else 40.0)
    sender = Sequencer(clock, bpm)
    sender.clocks(24 * 6)
    assert clock.tempo.shown_bpm == pytest.approx(bpm, rel=0.01)


def test_a_port_is_left_for_another_only_when_it_is_silent() -> None:
    choice = PortChoice()
    assert choice.hears("Mixer", "", START_NS) and not choice.changed
    assert not choice.hears("Drum machine", "", START_NS + SECOND)
    assert choice.hears("Mixer", "", START_NS + SECOND) and not choice.changed
    assert choice.hears("Drum machine", "", START_NS + 4 * SECOND) and choice.changed
    assert choice.hears("Mixer", "mix", START_NS + 4 * SECOND), "the one that was chosen does not wait"
    assert not choice.hears("Drum machine", "mix", START_NS + 60 * SECOND)


# OSC


def test_beats_by_osc_are_followed_with_their_numbers() -> None:
    clock = clock_at("osc")
    jitter = random.Random(5)
    for beat in range(400, 560):
        at = START_NS + round((beat - 400) * MINUTE_NS / 132.0 + abs(jitter.gauss(0.0, 8e6)))
        assert clock.osc_beat(float(beat), at)
    due = START_NS + 159 * MINUTE_NS / 132.0
    assert clock.tempo.beat_at(due) == pytest.approx(559.0, abs=0.04)
    assert clock.tempo.shown_bpm == pytest.approx(132.0, abs=0.7)
    clock.osc_beat(0.0, round(due + SECOND))  # the song was moved
    assert clock.tempo.beat_at(due + SECOND) == pytest.approx(0.0, abs=0.01)
    assert clock.tempo.shown_bpm == pytest.approx(132.0, abs=1.0)


@pytest.mark.parametrize("bpm", [33.0, 120.0, 300.0])
def test_a_ramp_from_0_to_1_is_followed(bpm: float) -> None:
    clock = clock_at("osc", 120.0)
    for frame in range(1800):
        at = START_NS + round(frame * SECOND / 60)
        clock.osc_phase((frame / 60 * bpm / 60) % 1.0, at)
    assert clock.tempo.shown_bpm == pytest.approx(bpm, abs=0.1)
    phase = (1799 / 60 * bpm / 60) % 1.0
    away = (clock.tempo.beat_at(at) - phase + 0.5) % 1.0 - 0.5
    assert away == pytest.approx(0.0, abs=0.01)


def test_beats_by_osc_that_end_are_missed() -> None:
    clock = clock_at("osc")
    for beat in range(20):
        clock.osc_beat(float(beat), START_NS + beat * 500_000_000)
    end = START_NS + 19 * 500_000_000
    assert clock.check(end + SECOND) is State.RUNNING
    assert clock.check(end + 3 * SECOND) is State.LOST
    assert clock.tempo.beat_at(end + 10 * SECOND) == pytest.approx(39.0, abs=0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e12])
def test_what_is_no_position_is_refused(value: float) -> None:
    clock = clock_at("osc")
    before = clock.tempo
    with pytest.raises(ControlError, match="no position"):
        clock.osc_beat(value, START_NS)
    with pytest.raises(ControlError, match="is not a phase"):
        clock.osc_phase(value, START_NS)
    with pytest.raises(ControlError, match="too far"):
        clock.nudge(value, START_NS)
    assert clock.tempo == before


def test_beats_that_nobody_follows_are_said_to_be_so() -> None:
    clock = clock_at()
    before = clock.tempo
    assert not clock.osc_beat(77.0, START_NS) and not clock.osc_phase(0.5, START_NS)
    clock.midi("start", 0, START_NS)
    clock.link(Line(START_NS, 5.0, 90.0), 2, START_NS)
    assert clock.tempo == before


# Taps


def test_taps_set_tempo_and_phase() -> None:
    clock = clock_at(bpm=100.0)
    for number in range(8):
        clock.tap(START_NS + 7_000_000 + number * 480_000_000)
    last = START_NS + 7_000_000 + 7 * 480_000_000
    assert clock.tempo.source == "tap"
    assert clock.tempo.shown_bpm == pytest.approx(125.0)
    assert clock.tempo.beat_at(last) == pytest.approx(round(clock.tempo.beat_at(last)))
    assert clock.tempo.bar_at(last) * 4 == pytest.approx(round(clock.tempo.bar_at(last) * 4), abs=1e-6)


def test_a_tap_between_two_beats_stays_between_them() -> None:
    clock = clock_at()
    times = [0, 500, 1000, 1500, 1750]
    for ms in times:
        clock.tap(START_NS + ms * 1_000_000)
    assert clock.tempo.beat_at(START_NS + 1_750_000_000) % 1.0 == pytest.approx(0.5)
    assert clock.tempo.shown_bpm == pytest.approx(120.0)


def test_taps_take_over_from_a_source_that_is_silent_and_from_no_other() -> None:
    clock = clock_at("midi")
    sender = Sequencer(clock, 128.0)
    sender.clocks(48)
    with pytest.raises(ControlError, match="follows MIDI clock"):
        clock.tap(sender.newest)
    clock.check(sender.newest + 3 * SECOND)
    clock.tap(sender.newest + 4 * SECOND)
    clock.tap(sender.newest + 4_500_000_000)
    assert clock.tempo.source == "tap"
    assert clock.tempo.shown_bpm == pytest.approx(120.0)


# By hand


def test_resync_makes_this_the_first_beat_of_a_bar() -> None:
    clock = clock_at()
    at = START_NS + 1_333_000_000
    clock.resync(at)
    assert clock.tempo.bar_at(at) == pytest.approx(0.0, abs=1e-9)
    clock = clock_at("midi")
    sender = Sequencer(clock)
    sender.say("start")
    sender.clocks(24 * 6 + 2)  # a bit after beat 6
    before = clock.tempo
    clock.resync(sender.newest)
    after = clock.tempo
    assert after.beat_at(sender.newest) == before.beat_at(sender.newest), "another program's beat is not moved"
    assert (after.bar_at(before.ns_at(6.0)) + 0.5) % 1.0 == pytest.approx(0.5, abs=1e-6)


def test_nudge_moves_the_beat_and_stays_when_the_song_starts_anew() -> None:
    clock = clock_at("midi")
    sender = Sequencer(clock)
    sender.say("start")
    sender.clocks(24 * 4 + 1)
    clock.nudge(25.0, sender.newest)
    assert sender.beat == pytest.approx(4.0 - 0.05, abs=1e-3)
    sender.clocks(24)
    assert sender.beat == pytest.approx(5.0 - 0.05, abs=1e-3)
    sender.say("start")
    sender.clocks(1)
    assert sender.beat == pytest.approx(-0.05, abs=1e-3)


@pytest.mark.parametrize("source", ["internal", "midi"])
def test_a_bend_runs_faster_while_it_is_held_and_keeps_what_it_has_moved(source: str) -> None:
    clock = clock_at(source)
    sender = Sequencer(clock)
    sender.clocks(96)
    before = clock.tempo.beat_at(sender.newest)
    clock.bend(4.0, sender.newest)
    start_ns = sender.newest
    sender.clocks(48)
    clock.check(sender.newest)
    clock.bend(0.0, sender.newest)
    moved = clock.tempo.beat_at(sender.newest) - before
    assert moved == pytest.approx((sender.newest - start_ns) * 120.0 / MINUTE_NS * 1.04, abs=2e-3)
    again = clock.tempo.beat_at(sender.newest)
    last = sender.newest
    sender.clocks(48)
    assert clock.tempo.beat_at(sender.newest) - again == pytest.approx((sender.newest - last) / 5e8, abs=2e-3)


def test_double_and_half_keep_the_first_beat_of_a_bar() -> None:
    clock = clock_at()
    at = START_NS + 5_000_000_000  # beat 10
    clock.resync(START_NS + 4_000_000_000)  # a bar begins at beat 8
    clock.scale(2.0, at)
    assert clock.tempo.shown_bpm == pytest.approx(240.0)
    assert clock.tempo.bar_at(START_NS + 4_000_000_000) == pytest.approx(0.0, abs=1e-9)
    assert clock.tempo.beat_at(at) % 1.0 == pytest.approx(0.0, abs=1e-9)
    clock.scale(0.5, at)
    assert clock.tempo.shown_bpm == pytest.approx(120.0)
    for _ in range(2):
        clock.scale(2.0, at)
    clock.scale(2.0, at)
    with pytest.raises(ControlError, match="1920 is no tempo"):
        clock.scale(2.0, at)


def test_a_source_that_is_followed_is_doubled_for_us_only_and_by_four_at_most() -> None:
    clock = clock_at("midi")
    sender = Sequencer(clock, 87.0)
    sender.say("start")
    sender.clocks(24 * 4 + 1)
    clock.scale(2.0, sender.newest)
    assert clock.tempo.shown_bpm == pytest.approx(174.0, abs=0.1)
    assert sender.beat == pytest.approx(8.0, abs=1e-2)
    sender.clocks(24)
    assert sender.beat == pytest.approx(10.0, abs=1e-2)
    clock.scale(2.0, sender.newest)
    with pytest.raises(ControlError, match="four times"):
        clock.scale(2.0, sender.newest)


def test_the_beat_goes_on_when_the_source_is_changed() -> None:
    clock = clock_at("midi")
    sender = Sequencer(clock, 140.0)
    sender.say("start")
    sender.clocks(24 * 10 + 1)
    at = sender.newest + 100_000_000
    before = clock.tempo.beat_at(at)
    for source in ("internal", "osc", "link", "tap", "midi"):
        clock.choose(source, at)
        assert clock.tempo.beat_at(at) == pytest.approx(before)
        assert clock.tempo.shown_bpm == pytest.approx(140.0, abs=0.1)


def test_a_session_of_link_is_followed_in_its_bars_and_our_count() -> None:
    clock = clock_at("internal")
    at = START_NS + 50 * SECOND  # beat 100
    clock.choose("link", at)
    assert clock.tempo.state is State.WAITING
    clock.link(Line(at, 7.25, 126.0), 1, at)
    tempo = clock.tempo
    assert (tempo.state, tempo.peers) == (State.RUNNING, 1)
    assert tempo.bar_at(at) == pytest.approx(3.25 / 4)
    assert tempo.beat_at(at) == pytest.approx(99.25)
    clock.link(Line(at, 7.25, 126.0), 0, at + SECOND)
    assert clock.tempo.state is State.LOST
    assert clock.tempo.beat_at(at + 10 * SECOND) == pytest.approx(99.25 + 21.0)


def test_a_tempo_out_of_range_is_followed_by_a_multiple() -> None:
    clock = clock_at("link")
    clock.link(Line(START_NS, 0.0, 600.0), 1, START_NS)
    clock.scale(0.5, START_NS)
    clock.link(Line(START_NS, 0.0, 30.0), 1, START_NS + SECOND)
    assert clock.tempo.shown_bpm == pytest.approx(30.0)


ACTS = st.one_of(
    st.tuples(st.just("choose"), st.sampled_from(["internal", "tap", "midi", "osc", "link"])),
    st.tuples(st.just("bpm"), st.floats(MIN_BPM, MAX_BPM)),
    st.tuples(st.just("tap"), st.none()),
    st.tuples(st.just("resync"), st.none()),
    st.tuples(st.just("scale"), st.sampled_from([0.5, 2.0])),
    st.tuples(st.just("nudge"), st.floats(-1000.0, 1000.0)),
    st.tuples(st.just("bend"), st.floats(-8.0, 8.0)),
    st.tuples(st.just("quantum"), st.integers(1, 8)),
    st.tuples(st.just("midi"), st.sampled_from(["clock", "clock", "clock", "start", "continue", "stop", "songpos"])),
    st.tuples(st.just("beat"), st.floats(-1e9, 1e9)),
    st.tuples(st.just("phase"), st.floats(0.0, 1.0)),
    st.tuples(st.just("link"), st.tuples(st.floats(-1e6, 1e6), st.floats(MIN_BPM, MAX_BPM), st.integers(0, 3))),
    st.tuples(st.just("check"), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(ACTS, st.integers(0, 3_000_000_000)), max_size=60))
def test_in_whatever_order_it_comes_there_is_a_beat(acts: list[tuple[tuple[str, object], int]]) -> None:
    clock, ns = Clock(START_NS), START_NS
    for (act, value), pause in acts:
        ns += pause
        try:
            match act, value:
                case "choose", str(source):
                    before = clock.tempo
                    clock.choose(source, ns)
                    assert clock.tempo.beat_at(ns) == pytest.approx(before.beat_at(ns), abs=1e-3, rel=1e-9)
                case "bpm", float(bpm):
                    clock.set_bpm(bpm, ns)
                case "scale", float(ratio):
                    clock.scale(ratio, ns)
                case "nudge", float(ms):
                    clock.nudge(ms, ns)
                case "bend", float(percent):
                    clock.bend(percent, ns)
                case "quantum", int(beats):
                    clock.set_quantum(beats, ns)
                case "midi", str(message):
                    clock.midi(message, 1234, ns)
                case "beat", float(beat):
                    clock.osc_beat(beat, ns)
                case "phase", float(phase):
                    clock.osc_phase(phase, ns)
                case "link", (float(beat), float(bpm), int(peers)):
                    clock.link(Line(float(ns), beat, bpm), peers, ns)
                case _:
                    getattr(clock, act)(ns)
        except ControlError:
            pass
        tempo = clock.tempo
        later = ns + 10 * SECOND
        assert math.isfinite(tempo.beat_at(ns)) and 0.0 <= tempo.bar_at(ns) < 1.0
        assert tempo.beat_at(later) >= tempo.beat_at(ns)
        assert MIN_BPM * 0.99 <= tempo.shown_bpm <= MAX_BPM * 1.01
        if tempo.moving:
            beat = tempo.next_boundary(ns, 4.0 * tempo.quantum)
            assert -0.001 <= beat - tempo.beat_at(ns) <= 4.0 * tempo.quantum + 0.001
