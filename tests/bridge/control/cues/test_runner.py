"""A cue list in simulated time: when cues are seen, glides, loops, hands, and that no order of events breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.cues import editing
from bridge.control.cues.controls import State
from bridge.control.cues.cue_list import CueError, CueList
from bridge.control.tempo.controls import SNAPS
from bridge.control.tempo.state import MINUTE_NS
from bridge.table import TABLE
from engine.errors import ControlError
from tests.bridge.control.cues.stage import MS, STEP_MS, Stage, listed

TICK = STEP_MS / 500  # beats at 120 bpm
SAMPLE = 0.25


def strength(value: float, **more: Any) -> dict[str, Any]:
    return {"set": {"strength": value}, **more}


def fifty(*, seconds: bool = False) -> list[dict[str, Any]]:
    """Fifty cues: prompts, steps and faders, with waits in beats and bars, glides, follows and inner loops."""
    rows: list[dict[str, Any]] = []
    for n in range(50):
        row: dict[str, Any] = {
            "name": f"Cue {n}",
            "prompt": f"picture {n}",
            "set": {"strength": (n * 37 % 100) / 100, "steps": n % 4 + 1, "mix": (n * 13 % 10) / 10},
            "wait": ["1 beat", "3 beats", "1 bar", "0.5 beats"][n % 4],
        }
        if n and n % 3 == 0:
            row["glide"] = ["2 beats", "1 bar", "0.5 beats"][n % 9 // 3]
        if n % 7 == 6:
            row |= {"follow": True}
            del row["wait"]
        if n % 20 == 10:
            row |= {"loop": f"Cue {n - 2}", "times": 2}
        if seconds and n % 5 == 4 and "wait" in row:
            row["wait"] = "0.75 s"
        rows.append(row)
    rows[0]["snap"] = "bar"
    rows[-1]["wait"] = "GO"
    return rows


def played(stage: Stage, beats: float) -> tuple[list[tuple[Any, ...]], list[tuple[float, str]]]:
    """Play the list from its first cue, at the next bar: the values at every quarter of a beat, and when prompts are
    seen, both counted from the begin."""
    stage.seen.clear()
    stage.runner.jump(1)
    first = stage.changes.pending[0].beat
    stage.until(first)
    found = []
    while stage.beat < first + beats:
        stage.until(first + (len(found) + 0.5) * SAMPLE)
        found.append(tuple(stage.value(name) for name in ("prompt_1", "steps", "strength", "mix")))
    prompts = [(at - first, value) for at, name, value in stage.seen if name == "prompt_1"]
    return found, prompts


def same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]], slack: float) -> None:
    assert len(one) == len(other)
    for at, (a, b) in enumerate(zip(one, other, strict=True)):
        assert a[:2] == b[:2], at * SAMPLE
        assert a[2:] == pytest.approx(b[2:], abs=slack), at * SAMPLE


@pytest.mark.parametrize("seconds", [False, True])
def test_fifty_cues_played_twice_give_the_same_values_at_the_same_beats(seconds: bool) -> None:
    stage = Stage(*fifty(seconds=seconds))
    first, prompts = played(stage, 130)
    assert len({value for _, value in prompts}) == 50 and stage.runner.view().number == 50
    assert len(prompts) >= 50 + 2 * 2 * 3, "with the loops"
    stage.run(1230)
    second, again = played(stage, 130)
    assert [value for _, value in prompts] == [value for _, value in again]
    assert [at for at, _ in prompts] == pytest.approx([at for at, _ in again], abs=2 * TICK)
    same(first, second, 0.03)
    assert stage.errors == []


@pytest.mark.parametrize("bpm", [60.0, 97.3, 174.0])
def test_at_another_tempo_and_latency_it_is_the_same_at_the_same_beats(bpm: float) -> None:
    one, other = Stage(*fifty()), Stage(*fifty(), latency_ms=250.0)
    other.clock.set_bpm(bpm, other.now_ns)
    _, prompts = played(one, 130)
    _, again = played(other, 130)
    assert [value for _, value in prompts] == [value for _, value in again]
    tick = STEP_MS * MS * bpm / MINUTE_NS
    away = [b - a for (a, _), (b, _) in zip(prompts, again, strict=True)]
    assert max(map(abs, away)) <= tick + TICK + 1e-6


def test_a_tempo_that_changes_while_it_plays_moves_the_cues_with_the_beat() -> None:
    stage = Stage(*(strength(n / 10, wait="2 beats") for n in range(1, 9)), latency_ms=100.0)
    stage.runner.go()
    for step in range(80):
        stage.clock.set_bpm(120.0 + step, stage.now_ns)
        stage.run(60)
    seen = [at for at in stage.begun("strength") if at > 0.5]
    assert len(seen) >= 6
    away = [(at + 1.0) % 2.0 - 1.0 for at in seen]
    assert max(map(abs, away)) < 0.04, "beats from GO"


@pytest.mark.parametrize("latency_ms", [0.0, 100.0, 250.0, 600.0])
def test_a_cue_snaps_to_the_bar_with_lookahead_and_its_successor_is_counted_from_there(latency_ms: float) -> None:
    rows = [{"prompt": "fire", "wait": "2 bars"}, {"prompt": "ink", "wait": "3 beats"}, {"prompt": "gold"}]
    stage = Stage(*rows, latency_ms=latency_ms)
    stage.store.set("snap", "bar")
    stage.run(900)
    stage.runner.go()
    assert stage.value("prompt_1") == "", "it waits"
    assert stage.runner.view().state is State.BEAT and stage.changes.pending[0].what == "cue_go"
    stage.until(20.0)
    assert stage.begun("prompt_1") == pytest.approx([4.0, 12.0, 16.0], abs=1.1 * TICK), "the last at the next bar"


def test_a_cue_of_its_own_snap_overrides_the_control() -> None:
    stage = Stage(strength(0.1, snap="off"), strength(0.2, snap="2-bars"), strength(0.3))
    stage.store.set("snap", "bar")
    stage.run(100)
    stage.runner.go()
    assert stage.value("strength") == 0.1, "at once"
    stage.runner.go()
    stage.until(7.9)
    assert stage.value("strength") == 0.1
    stage.until(8.1)
    assert stage.value("strength") == 0.2
    stage.runner.go()
    stage.runner.go()
    assert stage.value("strength") == 0.3, "GO again: at once"
    stage.run(5000)
    assert len(stage.seen) == 3


def test_waits_in_seconds_do_not_depend_on_the_tempo_and_go_skips_them() -> None:
    stage = Stage(*(strength(n / 10, wait="1.5 s") for n in range(1, 5)))
    stage.clock.set_bpm(41.0, stage.now_ns)
    stage.runner.go()
    stage.run(1400)
    assert stage.value("strength") == 0.1
    stage.run(200)
    assert stage.value("strength") == 0.2
    stage.runner.go()
    assert stage.value("strength") == 0.3
    view = stage.runner.view()
    assert (view.state, view.unit) == (State.WAIT, "s") and view.remaining == pytest.approx(1.5, abs=0.02)
    stage.run(1600)
    assert (stage.value("strength"), stage.runner.view().state) == (0.4, State.END)


def test_a_glide_in_beats_follows_the_tempo_and_a_hand_wins() -> None:
    stage = Stage(
        {"set": {"strength": 1.0, "motion": 0.0, "steps": 4}, "glide": "8 beats", "follow": True}, strength(0.5)
    )
    stage.hand("strength", 0.0)
    stage.runner.go()
    assert stage.value("steps") == 4, "what cannot glide switches"
    stage.until(4.0)
    assert stage.value("strength") == pytest.approx(0.5, abs=0.01)
    stage.clock.set_bpm(60.0, stage.now_ns)
    stage.hand("motion", 0.9)
    stage.until(6.0)
    assert stage.value("strength") == pytest.approx(0.75, abs=0.01)
    stage.until(7.9)
    assert stage.runner.view().number == 1
    stage.until(8.1)
    assert (stage.value("strength"), stage.value("motion"), stage.runner.view().number) == (0.5, 0.9, 2)


def test_a_glide_of_another_value_goes_on_when_the_next_cue_begins() -> None:
    stage = Stage({"set": {"motion": 0.0}, "glide": "8 beats", "wait": "2 beats"}, strength(0.1, glide="1 beat"))
    stage.runner.go()
    stage.until(4.0)
    assert stage.value("strength") == 0.1 and stage.value("motion") == pytest.approx(0.5, abs=0.02)
    stage.runner.stop()
    stage.run(2000)
    assert stage.value("motion") == pytest.approx(0.5, abs=0.02), "what glides stays where it is"


def test_a_snapshot_with_values_of_its_own_over_it() -> None:
    stage = Stage({"snapshot": 3, "set": {"mix": 0.75}}, {"snapshot": 9, "wait": "1 beat"}, strength(0.2))
    stage.looks[3] = {"mix": 0.25, "steps": 3, "prompt_1": "fire"}
    stage.runner.go()
    assert [stage.value(name) for name in ("mix", "steps", "prompt_1")] == [0.75, 3, "fire"]
    stage.runner.go()
    stage.run(1000)
    assert "Nothing is stored under 9" in stage.errors[0][1] and stage.value("strength") == 0.2, "the list goes on"


def test_loops_count_and_the_list_begins_anew() -> None:
    rows = [
        strength(0.1, name="A", wait="1 beat"),
        strength(0.2, wait="1 beat", loop="A", times=2),
        strength(0.3, wait="1 beat"),
    ]
    stage = Stage(*rows, loop=True)
    stage.runner.go()
    stage.run(500 * 9 + 20)
    found = [round(value * 10) for _, name, value in stage.seen if name == "strength"]
    assert found[:10] == [1, 2, 1, 2, 1, 2, 3, 1, 2, 1]


def test_back_jump_and_what_is_refused() -> None:
    stage = Stage(strength(0.1, name="Intro"), strength(0.2, name="7"), strength(0.3))
    for act in (stage.runner.back, lambda: stage.runner.jump("Nobody"), lambda: stage.runner.jump(4)):
        with pytest.raises(ControlError):
            act()
    stage.runner.jump("Intro")
    stage.runner.jump(" 7 ")
    assert stage.value("strength") == 0.2, "a name comes before a number"
    stage.runner.jump("3")
    stage.runner.back()
    assert stage.runner.view().number == 2
    stage.runner.jump(3.0)
    with pytest.raises(ControlError, match="at its end"):
        stage.runner.go()
    for nonsense in (True, 1.5, float("nan"), float("inf"), None, 0, -1, "-1", "²", "9" * 400):
        with pytest.raises(ControlError, match="There is no cue"):
            stage.runner.jump(nonsense)


def test_a_pause_holds_waits_and_glides_and_keeps_the_step_of_the_beat() -> None:
    stage = Stage({"set": {"strength": 1.0}, "glide": "8 beats", "wait": "4 beats"}, {"prompt": "ink"})
    stage.hand("strength", 0.0)
    stage.runner.go()
    stage.until(2.0)
    stage.runner.pause()
    half = stage.value("strength")
    stage.until(5.3)
    assert stage.value("strength") == half and stage.runner.view().state is State.PAUSED
    assert stage.runner.view().remaining == pytest.approx(2.0, abs=0.02)
    stage.runner.pause()
    stage.until(12.0)
    assert stage.begun("prompt_1") == pytest.approx([7.0], abs=2 * TICK), "on a beat"


def test_stop_ends_what_begins_by_itself_until_go() -> None:
    stage = Stage(strength(0.1, wait="1 beat"), strength(0.2, wait="1 beat"), strength(0.3))
    stage.runner.go()
    stage.runner.stop()
    stage.run(3000)
    assert (stage.value("strength"), stage.runner.view().state) == (0.1, State.GO)
    stage.runner.go()
    stage.run(700)
    assert stage.value("strength") == 0.3


def test_what_waits_for_the_bar_is_taken_back_by_cancel() -> None:
    stage = Stage(strength(0.1), strength(0.2))
    stage.run(100)
    stage.store.set("snap", "8-bars")
    stage.runner.go()
    stage.run(100)
    stage.changes.cancel()
    stage.runner.taken_back()
    stage.store.set("snap", "off")
    stage.run(1000)
    assert stage.seen == [] and stage.runner.view().state is State.GO
    stage.runner.go()
    assert stage.value("strength") == 0.1


def test_beats_stand_still_with_a_song_and_go_on_when_it_is_moved() -> None:
    stage = Stage(strength(0.1, wait="4 beats"), strength(0.2))
    stage.clock.choose("osc", stage.now_ns)
    beat = 100.0
    for n in range(60):
        stage.clock.osc_beat(beat, stage.now_ns)
        if n == 20:
            stage.runner.go()
        beat = 7.0 if n == 23 else beat + 0.5
        stage.run(250)
        if stage.value("strength") == 0.2:
            break
    assert 8.0 < beat < 12.0, "four beats after GO, two of them after the jump"


def test_the_list_is_edited_under_the_place() -> None:
    stage = Stage(*(strength(n / 10, name=str(n), wait="8 beats") for n in range(1, 6)))
    runner = stage.runner
    runner.jump(3)
    stage.until(2.0)

    def use(edit: editing.Edit) -> None:
        runner.use(edit.cues, edit.places)

    use(editing.moved(runner.cues, 1, 5))
    assert runner.view().number == 2 and runner.view().next_name == "4"
    use(editing.added(runner.cues, {"strength": 0.9}, "new"))
    use(editing.moved(runner.cues, 6, 1))
    assert runner.view().number == 3
    use(editing.named(runner.cues, TABLE, 3, "drei"))
    assert runner.view().name == "drei" and runner.view().state is State.WAIT
    stage.until(7.9)
    assert stage.value("strength") == 0.3
    use(editing.waiting(runner.cues, TABLE, 3, "9 beats"))
    stage.until(8.5)
    assert stage.value("strength") == 0.3, "a wait that is changed counts at once"
    stage.until(9.1)
    assert stage.value("strength") == 0.4
    use(editing.removed(runner.cues, runner.view().number))
    assert (runner.view().name, runner.view().next_name) == ("drei", "5")
    assert runner.view().state is State.GO, "its wait went with it"


NAMES = st.sampled_from(["A", "B", "C"])
NUMBERS = st.integers(0, 7)
ACTS = st.one_of(
    st.tuples(st.sampled_from(["go", "back", "stop", "pause", "cancel", "resync"])),
    st.tuples(st.just("jump"), st.one_of(NAMES, NUMBERS)),
    st.tuples(st.just("hand"), st.sampled_from(["strength", "mix", "motion"]), st.floats(0.0, 1.0)),
    st.tuples(st.just("snap"), st.sampled_from(tuple(SNAPS))),
    st.tuples(st.just("bpm"), st.floats(20.0, 999.0)),
    st.tuples(st.just("latency"), st.floats(0.0, 2000.0)),
    st.tuples(st.just("added"), NAMES),
    st.tuples(st.just("removed"), NUMBERS),
    st.tuples(st.just("moved"), NUMBERS, NUMBERS),
    st.tuples(st.just("named"), NUMBERS, NAMES),
    st.tuples(st.just("waiting"), NUMBERS, st.sampled_from(["1 beat", "0.1 s", "2 bars", "GO", "follow", "0", "moon"])),
    st.tuples(st.just("gliding"), NUMBERS, st.sampled_from(["2 beats", "0.2 s", ""])),
    st.tuples(st.just("looped"), st.integers(0, 1)),
    st.tuples(st.just("replaced"), st.just(listed(strength(0.5, wait="1 beat"), strength(0.6)))),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(ACTS, st.integers(0, 200)), max_size=25))
def test_in_whatever_order_the_state_stays_valid_and_nothing_raises(acts: list[tuple[tuple[Any, ...], int]]) -> None:
    rows = [strength(0.1, name="A", wait="1 beat"), {"prompt": "x", "glide": "1 beat", "follow": True}, strength(0.3)]
    stage = Stage(*rows, loop=True)
    runner = stage.runner
    for (act, *args), pause in acts:
        before = runner.view()
        try:
            if act in ("go", "back", "stop", "pause", "jump"):
                getattr(runner, act)(*args)
            elif act == "cancel":
                stage.changes.cancel()
                runner.taken_back()
            elif act == "resync":
                stage.clock.resync(stage.now_ns)
            elif act == "hand":
                stage.hand(*args)
                assert stage.value(args[0]) == args[1]
            elif act == "snap":
                stage.store.set("snap", args[0])
            elif act == "bpm":
                stage.clock.set_bpm(args[0], stage.now_ns)
            elif act == "latency":
                stage.latency_ms = args[0]
            else:
                given_first = {
                    "added": ({"strength": 0.7},),
                    "named": (TABLE,),
                    "waiting": (TABLE,),
                    "gliding": (TABLE,),
                }
                edit = getattr(editing, act)(runner.cues, *given_first.get(act, ()), *args)
                assert isinstance(edit.cues, CueList) and len(edit.places) == before.count
                runner.use(edit.cues, edit.places)
        except (ControlError, CueError):
            assert runner.view() == before, "what is refused changes nothing"
        stage.run(pause)
        view = runner.view()
        assert 0 <= view.number <= view.count == len(runner.cues.cue)
        assert 0 <= view.next_number <= view.count
        assert view.remaining >= 0.0 and (view.state is State.EMPTY) == (view.count == 0)
        assert not (view.state is State.END and view.next_number)
        assert [row.what for row in stage.changes.pending].count("cue_go") <= 2
    runner.stop()
    place = runner.view().number
    stage.store.set("snap", "off")
    stage.run(1000)
    assert runner.view().number == place, "after a stop nothing begins by itself"
    stage.seen.clear()
    stage.run(500)
    assert stage.seen == [], "and nothing glides"
    assert stage.errors == []
