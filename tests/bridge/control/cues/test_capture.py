"""What is played becomes cues: in simulated time."""

from __future__ import annotations

import pytest

from bridge.control.cues.capture import Capture, Moment
from bridge.control.cues.cue_list import MAX_CUES, Cue
from bridge.table import TABLE

LOOK = {"mix": 1.0, "strength": 0.6}


def at(s: float, moving: bool = True) -> Moment:
    return Moment(s, 2.0 * s if moving else None)


def rows(capture: Capture) -> list[tuple[object, ...]]:
    return [(cue.snapshot, dict(cue.values), str(cue.glide or ""), str(cue.wait or "GO")) for cue in capture.cues()]


def play(capture: Capture, name: str, value: object, s: float, moving: bool = True) -> None:
    capture.note(TABLE.by_name[name], value, at(s, moving))


@pytest.fixture
def capture() -> Capture:
    return Capture("Take 1", LOOK, at(0.0), MAX_CUES)


def test_nothing_played_is_the_look_alone(capture: Capture) -> None:
    assert capture.cues() == [Cue(name="Take 1", values=LOOK)]


def test_a_fader_becomes_one_cue_with_its_glide_when_it_rests(capture: Capture) -> None:
    for step in range(21):
        play(capture, "strength", step / 20, 2.0 + step / 20)
        capture.settle(2.0 + step / 20)
    capture.settle(3.6)
    play(capture, "strength", 0.25, 4.0)
    assert rows(capture) == [
        (None, LOOK, "", "4 beats"),
        (None, {"strength": 1.0}, "1 s", "4 beats"),
        (None, {"strength": 0.25}, "", "GO"),
    ]


def test_snapshots_prompts_and_switches_with_waits_in_beats(capture: Capture) -> None:
    capture.recall(3, 2.0, at(1.0))
    play(capture, "prompt_1", "fire", 3.0)
    play(capture, "weight_2", 0.5, 3.01)
    play(capture, "steps", 4, 3.02)
    capture.settle(3.6)
    play(capture, "prompt_1", "ink", 4.25)
    assert rows(capture) == [
        (None, LOOK, "", "2 beats"),
        (3, {}, "2 s", "4 beats"),
        (None, {"prompt_1": "fire", "steps": 4, "weight_2": 0.5}, "", "2.5 beats"),
        (None, {"prompt_1": "ink"}, "", "GO"),
    ]


def test_two_faders_at_once_and_one_that_goes_on(capture: Capture) -> None:
    for step in range(11):
        play(capture, "strength", step / 10, 1.0 + step / 10)
        play(capture, "mix", step / 10, 1.01 + step / 10)
        if step < 3:
            play(capture, "motion", step / 10, 1.5 + step / 10)
    assert rows(capture) == [
        (None, LOOK, "", "2 beats"),
        (None, {"strength": 1.0, "mix": 1.0}, "1 s", "1 beat"),
        (None, {"motion": 0.2}, "0.2 s", "GO"),
    ]


def test_without_a_beat_waits_are_seconds(capture: Capture) -> None:
    play(capture, "steps", 1, 1.5)
    play(capture, "steps", 2, 3.0, moving=False)
    play(capture, "steps", 3, 4000.0, moving=False)
    assert [row[3] for row in rows(capture)] == ["3 beats", "1.5 s", "3600 s", "GO"]


def test_what_no_look_holds_is_left_out(capture: Capture) -> None:
    for name, value in (("black", True), ("tempo_bpm", 99.0), ("seed", 5), ("snap", "bar"), ("record", True)):
        play(capture, name, value, 1.0)
    play(capture, "prompt_1", "x" * 1001, 1.0)
    assert len(capture.cues()) == 1


def test_its_length_is_bounded() -> None:
    capture = Capture("Take 1", LOOK, at(0.0), 5)
    for n in range(4):
        assert not capture.full
        play(capture, "steps", 1 + n % 4, 1.0 + n)
    assert capture.full
