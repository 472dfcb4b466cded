"""The store of live controls: coercion, twins, commands, patterns, listeners, threads."""

import dataclasses
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.origin import Origin, Trust
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.pipeline.stages.mix_controls import MixControls
from bridge.table import TABLE, start_values
from engine.control import PREFIX, Kind
from engine.controls import Controls
from engine.errors import ControlError

ME = Origin("me", Trust.MACHINE)
NUMERIC = [c for c in TABLE.controls if c.numeric]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.integers()),
    st.sampled_from([10**5000, "half \ud800", "1e999", "nan", " 0.5 ", "0x1", "ON", "Cover", b"\xff", object()]),
)


def recording_store():
    store = ControlStore(TABLE)
    seen, errors = [], []
    store.listen(lambda *event: seen.append(event))
    store.listen_errors(lambda *error: errors.append(error))
    return store, seen, errors


def is_valid(control, value):
    match control.kind:
        case Kind.FLOAT:
            return type(value) is float and control.low <= value <= control.high
        case Kind.INT:
            return type(value) is int and control.low <= value <= control.high
        case Kind.BOOL:
            return type(value) is bool
        case Kind.CHOICE:
            return value in control.choices
        case Kind.TEXT:
            return type(value) is str


@settings(deadline=None)
@given(st.sampled_from(TABLE.controls), VALUES)
def test_whatever_comes_is_coerced_into_a_valid_value_or_refused_with_the_address(control, value):
    try:
        effective = control.coerce(value)
    except ControlError as error:
        assert error.address == PREFIX + control.address
        assert str(error)
    else:
        assert is_valid(control, effective)
        assert control.coerce(effective) == effective


@settings(deadline=None)
@given(st.sampled_from(NUMERIC), st.floats(0, 1))
def test_norm_covers_the_range_and_back(control, norm):
    value = control.from_norm(norm)
    assert is_valid(control, value)
    rounding = 0.5 / (control.high - control.low) if control.kind is Kind.INT else 1e-9
    assert math.isclose(control.to_norm(value), norm, abs_tol=rounding + 1e-9)


@settings(deadline=None)
@given(st.sampled_from(NUMERIC), st.integers(0, 127))
def test_midi_covers_the_range_and_back(control, midi):
    value = control.from_midi(midi)
    assert is_valid(control, value)
    if control.kind is Kind.FLOAT:
        assert control.to_midi(value) == midi


@settings(deadline=None)
@given(st.text(), st.lists(VALUES, max_size=4))
def test_handle_never_raises(address, args):
    store, _, errors = recording_store()
    understood = store.handle(address, args)
    assert understood or errors


@settings(deadline=None)
@given(st.sampled_from(sorted(TABLE.targets)), st.lists(VALUES, max_size=3))
def test_handle_never_raises_at_a_real_address_and_every_control_stays_valid(address, args):
    store, _, errors = recording_store()
    understood = store.handle(address, args)
    assert understood or errors
    assert all(is_valid(c, store.snapshot.value(c.name)) for c in TABLE.controls)


@pytest.mark.parametrize(
    ("address", "value", "name", "effective"),
    [
        ("/strength", 0.25, "strength", 0.25),
        ("/strength", 7, "strength", 1.0),
        ("/strength", "0.5", "strength", 0.5),
        ("/strength", True, "strength", 1.0),
        ("/steps", 2.5, "steps", 3),
        ("/steps/norm", 1.0, "steps", 4),
        ("/steps/midi", 0, "steps", 1),
        ("/slo/latency/norm", 0.5, "slo_latency", 1025.0),
        ("/slo/latency/midi", 127, "slo_latency", 2000.0),
        ("/bypass", 1.0, "bypass", True),
        ("/bypass", "off", "bypass", False),
        ("/fit", "STRETCH", "fit", "stretch"),
        ("/fit", 1, "fit", "contain"),
        ("/prompt/2", "ein Wald, 森", "prompt_2", "ein Wald, 森"),
        ("/input", 3, "input", "3"),
        ("/seed", 2**40, "seed", 2**31 - 1),
    ],
)
def test_messages_set_controls(address, value, name, effective):
    store, seen, errors = recording_store()
    assert store.handle(PREFIX + address, [value], ME)
    assert store.snapshot.value(name) == effective
    assert seen == [(name, effective, ME)]
    assert not errors


@pytest.mark.parametrize(
    ("address", "args", "part"),
    [
        ("/strength", ["much"], "'much' is not a number"),
        ("/strength", [float("nan")], "nan is not a number"),
        ("/strength", [], "One value is needed, got 0"),
        ("/strength", [0.1, 0.2], "One value is needed, got 2"),
        ("/fit", ["wide"], "cover, contain, stretch"),
        ("/prompt/1/norm", [0.5], "nothing at this address"),
        ("/nowhere", [1], "nothing at this address"),
        ("/snapshot/save", [], "number, [with]; 0 came"),
        ("/snapshot/recall", ["x"], "'x' is not a number"),
        ("/inputs", [], "not running"),
        ("/*/*/*/*/*", [1], "asterisks"),
    ],
)
def test_what_cannot_be_understood_is_answered_and_changes_nothing(address, args, part):
    store, seen, errors = recording_store()
    answers = []
    before = store.snapshot
    assert not store.handle(PREFIX + address, args, ME, reply=lambda *answer: answers.append(answer))
    assert store.snapshot is before
    assert not seen
    ((where, reason),) = errors
    assert where == PREFIX + address
    assert part in reason
    assert answers == [("/error", (where, reason))]


def test_an_address_without_the_prefix_is_told_about_it():
    store, _, errors = recording_store()
    store.handle("/strength", [0.5])
    assert "Addresses begin with /tidecast/" in errors[0][1]


def test_the_prompt_shortcut_shows_one_prompt_alone():
    store = ControlStore(TABLE, start_values({"weight_1": 0.2, "weight_3": 0.9}))
    assert store.handle(PREFIX + "/prompt", ["a tree"])
    assert store.snapshot.of(Controls).prompts() == (("a tree", 1.0),)


def test_triggers_count_and_a_released_button_does_not():
    store = ControlStore(TABLE)
    for args in ([], [1], [1.0], [True], ["go"]):
        store.handle(PREFIX + "/reset", args)
    for args in ([0], [0.0], [False]):
        store.handle(PREFIX + "/reset", args)
    store.handle(PREFIX + "/anchor", [])
    assert (store.snapshot.value("resets"), store.snapshot.value("anchors")) == (5, 1)


def test_a_pattern_sets_every_control_that_it_matches():
    store = ControlStore(TABLE)
    assert store.handle(PREFIX + "/prompt/[2-3]/weight", [0.5])
    assert store.handle(PREFIX + "/{mix,motion}", [0.25])
    assert store.handle(PREFIX + "/prompt/?", ["x"])
    assert store.handle(PREFIX + "/prompt/[!1-3]", ["y"])
    now = store.snapshot
    assert (now.value("weight_1"), now.value("weight_2"), now.value("weight_3"), now.value("weight_4")) == (
        1.0,
        0.5,
        0.5,
        0.0,
    )
    assert (now.value("mix"), now.value("motion"), now.value("prompt_1"), now.value("prompt_4")) == (
        0.25,
        0.25,
        "x",
        "y",
    )
    assert now.value("resets") == 0


def test_set_many_is_one_swap_and_all_or_nothing():
    store, seen, _ = recording_store()
    assert store.set_many({"mix": 2, "steps": "3"}, ME) == {"mix": 1.0, "steps": 3}
    assert seen == [("mix", 1.0, ME), ("steps", 3, ME)]
    before = store.snapshot
    with pytest.raises(ControlError):
        store.set_many({"mix": 0.5, "fit": "no"})
    with pytest.raises(ControlError):
        store.set("no_such_control", 1)
    assert store.snapshot is before


def test_commands_reach_their_handlers_with_coerced_arguments_and_failures_are_answered():
    store, _, errors = recording_store()
    calls = []
    off = store.on("snapshot_recall", lambda args, caller: calls.append((args, caller.origin)))
    assert store.handle(PREFIX + "/snapshot/recall", ["7", 2], ME)
    assert calls == [((7, 2.0), ME)]
    off()
    assert not store.handle(PREFIX + "/snapshot/recall", [7])

    def broken(args, caller):
        raise RuntimeError("a defect")

    store.on("snapshot_save", broken)
    assert not store.handle(PREFIX + "/snapshot/save", [1])
    assert "log says why" in errors[-1][1]
    with pytest.raises(KeyError):
        store.on("no_such_command", broken)


def test_a_defect_is_answered_and_its_traceback_logged_once(caplog):
    store, _, errors = recording_store()

    def broken(*_):
        raise RuntimeError("a defect")

    store.on("snapshot_save", broken)
    store.restrict("mix", broken)
    for number in range(200):
        assert not store.handle(f"/nowhere/{number}", [1])
    for _ in range(50):
        assert not store.handle(PREFIX + "/snapshot/save", [1])
        assert not store.handle(PREFIX + "/mix", [0.5])
    assert len(errors) == 300 and "log says why" in errors[-1][1]
    assert caplog.text.count("Traceback") == 2


def test_a_broken_listener_stops_nothing():
    store = ControlStore(TABLE)
    seen = []

    def broken(*event):
        raise RuntimeError("a defect")

    store.listen(broken)
    unlisten = store.listen(lambda *event: seen.append(event))
    store.set("mix", 0.5)
    unlisten()
    store.set("mix", 0.6)
    assert len(seen) == 1
    assert store.snapshot.value("mix") == 0.6


def test_writers_on_many_threads_lose_nothing():
    store = ControlStore(TABLE)
    names = [c.name for c in NUMERIC[:4]]

    def write(name):
        for number in range(500):
            store.set(name, TABLE.by_name[name].from_norm(number / 499))
            store.handle(PREFIX + "/reset", [])

    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.snapshot.value("resets") == 2000
    assert all(store.snapshot.value(n) == TABLE.by_name[n].high for n in names)


def test_the_snapshot_is_immutable():
    store = ControlStore(TABLE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        store.snapshot.of(MixControls).mix = 0.0


def test_telemetry_keeps_the_newest_values_and_knows_its_table():
    telemetry = Telemetry(TABLE)
    telemetry.update(fps_in=30, state="running", dropped=2.0)
    telemetry.update(fps_in=29.5)
    assert telemetry.snapshot() == {"fps_in": 29.5, "state": "running", "dropped": 2}
    with pytest.raises(KeyError):
        telemetry.update(no_such_reading=1)
    errors = []
    unlisten = telemetry.listen_errors(lambda *e: errors.append(e))
    telemetry.error("input", "gone")
    unlisten()
    telemetry.error("input", "gone again")
    assert errors == [("input", "gone")]


def test_every_control_command_and_reading_says_what_it_is():
    rows = [*TABLE.controls, *TABLE.commands, *TABLE.readings]
    assert all(row.help.endswith(".") and len(row.help) > 5 for row in rows)
    assert len({row.address for row in rows}) == len(rows)
    assert all(c.label and c.group for c in [*TABLE.controls, *TABLE.commands])
