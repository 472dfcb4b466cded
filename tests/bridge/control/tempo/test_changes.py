"""Changes that wait for the beat, in simulated time: when they are seen, and that none is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.origin import INTERNAL, Origin, Trust
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.control.tempo.changes import Changes
from bridge.control.tempo.clock import Clock
from bridge.control.tempo.controls import SNAPS
from bridge.control.tempo.state import MINUTE_NS
from bridge.table import TABLE
from engine.control import PREFIX
from engine.errors import ControlError

MS = 1_000_000
START_NS = 3_000_000_000_000
TICK_MS = 1000.0 / 60.0
PAGE = Origin("web:1", Trust.MACHINE)


@dataclass
class Stage:
    """A bridge without pictures: what is sent to the engine is seen `latency_ms` later."""

    latency_ms: float = 250.0
    now_ns: int = START_NS
    errors: list[tuple[str, str]] = field(default_factory=list)
    set_ns: dict[str, int] = field(default_factory=dict)
    told: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = ControlStore(TABLE)
        self.clock = Clock(self.now_ns)
        self.changes = Changes(
            self.store,
            lambda: self.clock.tempo,
            self.lead_ms,
            lambda *error: self.errors.append(error),
            lambda: self.now_ns,
        )
        self.store.hold_with(self.changes.hold)
        self.store.listen(self.changes.note_write)
        self.store.listen(self._note)

    def lead_ms(self, name: str) -> float:
        return TICK_MS / 2 if name == "mix" else self.latency_ms

    def _note(self, name: str, value: Any, origin: Origin) -> None:
        self.set_ns[name] = self.now_ns
        self.told.append((name, value))

    def run(self, ms: float) -> None:
        """Let time pass, in steps of 1 ms."""
        for _ in range(round(ms)):
            self.now_ns += MS
            self.changes.apply(self.now_ns)

    def say(self, address: str, *args: Any) -> None:
        assert self.store.handle(PREFIX + address, args, PAGE), address

    def value(self, name: str) -> Any:
        return self.store.snapshot.value(name)

    def seen_beat(self, name: str) -> float:
        """The position at which the last change of a control is seen."""
        return self.clock.tempo.beat_at(self.set_ns[name] + self.lead_ms(name) * MS)


@pytest.mark.parametrize("latency_ms", [0.0, 100.0, 250.0, 600.0])
@pytest.mark.parametrize(("snap", "beats"), [("beat", 1), ("bar", 4), ("2-bars", 8), ("4-bars", 16), ("8-bars", 32)])
def test_a_change_is_seen_on_the_beat_whatever_the_latency(latency_ms: float, snap: str, beats: int) -> None:
    stage = Stage(latency_ms)
    stage.say("/snap", snap)
    stage.run(777)
    stage.say("/prompt/1", "fire")
    asked = stage.clock.tempo.beat_at(stage.now_ns)
    assert stage.value("prompt_1") == "", "it waits"
    assert [(change.what, change.value) for change in stage.changes.pending] == [("prompt_1", "fire")]
    stage.run(beats * 500 + latency_ms + 10)
    assert stage.value("prompt_1") == "fire"
    assert stage.changes.pending == ()
    seen = stage.seen_beat("prompt_1")
    due = -(-(asked + latency_ms / 500) // beats) * beats
    assert seen == pytest.approx(due, abs=1.1 / 500), "at the first moment that could still be met"


@pytest.mark.parametrize("latency_ms", [100.0, 250.0, 600.0])
@pytest.mark.parametrize("to_bpm", [60.0, 132.0, 174.0])
def test_a_tempo_that_changes_meanwhile_moves_the_moment(latency_ms: float, to_bpm: float) -> None:
    stage = Stage(latency_ms)
    stage.say("/snap", "4-bars")
    stage.run(1234)
    stage.say("/prompt/1", "fire")
    due = stage.changes.pending[0].beat
    for step in range(1, 21):  # over two seconds, not at once
        stage.clock.set_bpm(120.0 + (to_bpm - 120.0) * step / 20, stage.now_ns)
        stage.run(100)
    assert stage.changes.pending, "not yet"
    stage.run(16 * MINUTE_NS / MS / to_bpm)
    away_ms = (stage.seen_beat("prompt_1") - due) * MINUTE_NS / MS / to_bpm
    assert abs(away_ms) <= TICK_MS, f"{away_ms:.1f} ms from the beat"


@pytest.mark.parametrize("latency_ms", [100.0, 250.0, 600.0])
@pytest.mark.parametrize("grows", ["tempo", "latency"])
def test_a_moment_that_can_no_longer_be_met_is_left_for_the_next(latency_ms: float, grows: str) -> None:
    """Shortly before the change is sent the tempo rises by a half, or the engine becomes slower."""
    stage = Stage(latency_ms)
    stage.say("/snap", "2-bars")
    stage.run(100)
    stage.say("/prompt/1", "fire")
    stage.run(8 * 500 - latency_ms - 100 - 20)
    assert stage.changes.pending[0].beat == 8.0
    if grows == "tempo":
        stage.clock.set_bpm(180.0, stage.now_ns)
    else:
        stage.latency_ms += 100.0
    stage.run(5)
    assert stage.changes.pending[0].beat == 16.0
    stage.run(6000)
    assert stage.seen_beat("prompt_1") == pytest.approx(16.0, abs=1.6 / 333)


def test_a_thread_that_was_held_up_sends_late_and_not_a_bar_later() -> None:
    stage = Stage(100.0)
    stage.say("/snap", "bar")
    stage.run(100)
    stage.say("/prompt/1", "fire")
    stage.run(1750)
    stage.now_ns += 300 * MS  # no look meanwhile
    stage.run(1)
    assert stage.value("prompt_1") == "fire"


def test_a_latency_that_changes_meanwhile_counts_too() -> None:
    stage = Stage(100.0)
    stage.say("/snap", "2-bars")
    stage.run(10)
    stage.say("/steps", 4)
    stage.run(1000)
    stage.latency_ms = 400.0
    stage.run(4000)
    assert stage.seen_beat("steps") == pytest.approx(8.0, abs=1.1 / 500)


def test_the_trim_sends_it_earlier() -> None:
    stage = Stage(250.0)
    stage.say("/snap", "bar")
    stage.say("/snap/trim", 80.0)
    stage.run(100)
    stage.say("/prompt/1", "fire")
    stage.run(2500)
    assert stage.seen_beat("prompt_1") == pytest.approx(4.0 - 80 / 500, abs=1.1 / 500)


def test_without_snap_and_while_the_beat_stands_still_nothing_waits() -> None:
    stage = Stage()
    stage.say("/prompt/1", "fire")
    assert stage.value("prompt_1") == "fire"
    stage.say("/snap", "bar")
    stage.clock.choose("midi", stage.now_ns)
    stage.clock.midi("clock", 0, stage.now_ns)
    stage.clock.midi("stop", 0, stage.now_ns)
    stage.say("/prompt/1", "ink")
    assert stage.value("prompt_1") == "ink"


def test_what_waits_when_the_song_stops_is_not_lost() -> None:
    stage = Stage()
    stage.clock.choose("midi", stage.now_ns)
    stage.clock.midi("clock", 0, stage.now_ns)
    stage.say("/snap", "8-bars")
    stage.say("/prompt/1", "fire")
    stage.run(10)
    assert stage.value("prompt_1") == ""
    stage.clock.midi("stop", 0, stage.now_ns)
    stage.run(1)
    assert stage.value("prompt_1") == "fire"


def test_a_song_that_starts_anew_chooses_another_moment() -> None:
    stage = Stage(100.0)
    stage.clock.choose("midi", stage.now_ns)
    stage.say("/snap", "bar")
    for number in range(24 * 30):
        if number == 24 * 21 + 3:  # in a bar's middle the song goes back to its start
            stage.say("/prompt/1", "fire")
            stage.clock.midi("start", 0, stage.now_ns)
        stage.clock.midi("clock", 0, stage.now_ns)
        stage.run(21)
        if number == 24 * 21 + 3:
            assert [change.beat for change in stage.changes.pending] == [4.0]
    assert stage.value("prompt_1") == "fire"


def test_a_message_waits_as_a_whole_and_faders_do_not() -> None:
    stage = Stage()
    stage.say("/snap", "bar")
    stage.say("/prompt/2/weight", 0.5)
    stage.say("/strength", 0.9)
    assert (stage.value("weight_2"), stage.value("strength")) == (0.5, 0.9)
    stage.say("/prompt", "fire")
    stage.store.set_many({"prompt_2": "ink", "mix": 0.5}, PAGE)
    assert (stage.value("prompt_1"), stage.value("weight_2"), stage.value("mix")) == ("", 0.5, 1.0)
    assert {change.what for change in stage.changes.pending} == {"prompt_1", "weight_2", "prompt_2", "mix"}
    stage.run(2500)
    found = [stage.value(name) for name in ("prompt_1", "prompt_2", "weight_2", "mix")]
    assert found == ["fire", "ink", 0.0, 0.5]
    assert stage.seen_beat("mix") == pytest.approx(stage.seen_beat("prompt_2"), abs=2.2 / 500), "seen together"


def test_the_newest_of_a_control_counts_and_the_value_in_force_takes_back() -> None:
    stage = Stage()
    stage.say("/snap", "bar")
    stage.say("/prompt/1", "fire")
    stage.say("/prompt/1", "ink")
    assert [change.value for change in stage.changes.pending] == ["ink"]
    stage.say("/prompt/1", "")
    assert stage.changes.pending == ()
    stage.run(2500)
    assert stage.value("prompt_1") == ""


def test_a_hand_on_a_fader_wins_over_what_waits() -> None:
    stage = Stage()
    stage.say("/prompt/2/weight", 1.0)
    stage.say("/snap", "bar")
    stage.say("/prompt", "fire")
    stage.say("/prompt/2/weight", 0.3)
    stage.run(2500)
    assert (stage.value("prompt_1"), stage.value("weight_2")) == ("fire", 0.3)


def test_what_waits_can_be_taken_back_and_is_told() -> None:
    stage = Stage()
    stage.say("/snap", "8-bars")
    stage.say("/prompt/1", "fire")
    stage.say("/steps", 4)
    stage.told.clear()
    stage.changes.cancel()
    assert stage.changes.pending == ()
    assert dict(stage.told) == {"prompt_1": "", "steps": 2}, "a page shows the values in force again"
    stage.run(20_000)
    assert (stage.value("prompt_1"), stage.value("steps")) == ("", 2)


def test_another_snap_chooses_another_moment_and_off_makes_the_changes() -> None:
    stage = Stage(100.0)
    stage.say("/snap", "8-bars")
    stage.run(600)
    stage.say("/prompt/1", "fire")
    assert stage.changes.pending[0].beat == 32.0
    stage.say("/snap", "beat")
    stage.run(1)
    assert stage.changes.pending[0].beat == 2.0
    stage.say("/snap", "off")
    stage.run(1)
    assert stage.value("prompt_1") == "fire"


def test_what_tidecast_itself_sets_does_not_wait() -> None:
    stage = Stage()
    stage.say("/snap", "bar")
    stage.store.set_many({"prompt_1": "fire"}, INTERNAL)
    assert stage.value("prompt_1") == "fire"


def test_a_change_that_is_refused_in_the_end_is_said_and_keeps_no_other() -> None:
    stage = Stage()

    def refuse(value: Any, origin: Origin) -> Any:
        if closed:
            raise ControlError("/tidecast/steps", "Not now.")
        return value

    closed = False
    stage.store.restrict("steps", refuse)
    stage.say("/snap", "bar")
    stage.say("/steps", 4)
    stage.store.set("prompt_1", "fire", Origin("web:2", Trust.MACHINE))
    closed = True
    stage.run(2500)
    assert stage.value("prompt_1") == "fire"
    assert [topic for topic, _ in stage.errors] == ["snap"]
    assert "Not now" in stage.errors[0][1]


# Snapshots


@pytest.fixture
def kept(tmp_path):
    stage = Stage(250.0)
    snapshots = Snapshots(stage.store, tmp_path / "snapshots.json", pytest.fail, later=stage.changes.later).start()
    stage.store.set_many({"prompt_1": "fire", "mix": 0.25, "steps": 4}, INTERNAL)
    snapshots.save(1)
    stage.store.set_many({"prompt_1": "ink", "mix": 1.0, "steps": 1}, INTERNAL)
    snapshots.save(2)
    yield stage
    snapshots.stop()


def test_a_snapshot_is_seen_on_the_beat_as_a_whole(kept: Stage) -> None:
    kept.say("/snap", "bar")
    kept.run(333)
    kept.say("/snapshot/recall", 1)
    assert [(change.what, change.value) for change in kept.changes.pending] == [("snapshot_recall", 1)]
    assert kept.value("mix") == 1.0
    kept.run(2500)
    assert [kept.value(name) for name in ("prompt_1", "mix", "steps")] == ["fire", 0.25, 4]
    for name in ("prompt_1", "steps", "mix"):
        assert kept.seen_beat(name) == pytest.approx(4.0, abs=1.2 / 500), name
    assert kept.set_ns["prompt_1"] < kept.set_ns["mix"], "what is late is sent earlier"


def test_of_two_snapshots_the_last_one_counts_and_a_prompt_after_it_is_kept(kept: Stage) -> None:
    kept.say("/snap", "bar")
    kept.say("/prompt/2", "gold")
    kept.say("/snapshot/recall", 2)
    kept.say("/snapshot/recall", 1)
    kept.say("/prompt/1", "ocean")
    kept.run(2500)
    assert [kept.value(name) for name in ("prompt_1", "prompt_2", "mix")] == ["ocean", "", 0.25]


def test_the_value_in_force_wins_over_a_snapshot_that_was_asked_for_before(kept: Stage) -> None:
    kept.say("/snap", "bar")
    kept.say("/snapshot/recall", 1)
    kept.say("/prompt/1", "ink")
    kept.run(2500)
    assert [kept.value(name) for name in ("prompt_1", "steps")] == ["ink", 4]


def test_a_snapshot_that_is_recalled_at_once_takes_the_place_of_one_that_waits(kept: Stage) -> None:
    kept.say("/snap", "8-bars")
    kept.say("/snapshot/recall", 1)
    kept.say("/snap", "off")
    kept.say("/snapshot/recall", 2)
    assert kept.changes.pending == ()
    kept.run(100)
    assert kept.value("prompt_1") == "ink"


def test_a_snapshot_that_does_not_exist_is_refused_at_once(kept: Stage) -> None:
    kept.say("/snap", "bar")
    answers: list[Any] = []
    assert not kept.store.handle(PREFIX + "/snapshot/recall", [7], PAGE, lambda *answer: answers.append(answer))
    assert "Nothing is stored under 7" in answers[0][1][1]
    assert kept.changes.pending == ()


def test_half_a_snapshot_is_finished_when_the_song_is_moved(kept: Stage) -> None:
    kept.clock.choose("osc", kept.now_ns)
    kept.clock.osc_beat(100.0, kept.now_ns)
    kept.say("/snap", "bar")
    kept.say("/snapshot/recall", 1)
    while kept.value("prompt_1") != "fire":
        kept.run(1)
    assert kept.value("mix") == 1.0
    kept.clock.osc_beat(9.5, kept.now_ns)
    kept.run(1)
    assert kept.value("mix") == 0.25


ACTS = st.one_of(
    st.tuples(st.just("/snap"), st.sampled_from(tuple(SNAPS))),
    st.tuples(st.just("/prompt/1"), st.sampled_from(["fire", "ink", "gold"])),
    st.tuples(st.just("/steps"), st.integers(1, 4)),
    st.tuples(st.just("/prompt"), st.sampled_from(["ocean", "neon"])),
    st.tuples(st.just("/prompt/1/weight"), st.floats(0.0, 1.0)),
    st.tuples(st.just("bpm"), st.floats(20.0, 999.0)),
    st.tuples(st.just("latency"), st.floats(0.0, 2000.0)),
    st.tuples(st.just("resync"), st.none()),
    st.tuples(st.just("cancel"), st.none()),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ACTS, st.integers(0, 40)), max_size=25))
def test_in_whatever_order_the_last_value_of_a_control_lands(acts: list[tuple[tuple[str, Any], int]]) -> None:
    """Prompts and steps end at what was asked for last, or at what was in force when it was taken back."""
    stage = Stage()
    wanted: dict[str, Any] = {"prompt_1": "", "steps": 2, "weight_1": 1.0}
    for (act, value), pause in acts:
        stage.run(pause)
        if act == "bpm":
            stage.clock.set_bpm(value, stage.now_ns)
        elif act == "latency":
            stage.latency_ms = value
        elif act == "resync":
            stage.clock.resync(stage.now_ns)
        elif act == "cancel":
            stage.changes.cancel()
            wanted = {name: stage.value(name) for name in wanted}
        else:
            stage.say(act, value)
            wanted |= {"/prompt/1": {"prompt_1": value}, "/steps": {"steps": value}}.get(act, {})
            wanted |= {"/prompt": {"prompt_1": value, "weight_1": 1.0}}.get(act, {})
            wanted |= {"/prompt/1/weight": {"weight_1": value}}.get(act, {})
        names = [change.what for change in stage.changes.pending]
        assert len(names) == len(set(names))
    stage.clock.set_bpm(999.0, stage.now_ns)
    stage.run(2000 + 8 * 4 * 61)
    assert stage.changes.pending == ()
    assert {name: stage.value(name) for name in wanted} == wanted
    assert stage.errors == []
