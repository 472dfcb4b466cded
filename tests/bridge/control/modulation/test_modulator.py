"""The text of a modulator: what it stands for, its shortest form, and errors that name modulator and key."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.config_file import start_value
from bridge.control.modulation.controls import SLOTS, ModulationControls, readings_of
from bridge.control.modulation.modulator import KEYS, LONGEST_TEXT, NAMES, Modulator, can_be_modulated, parse, resolved
from bridge.control.stored.content import stored_names
from bridge.table import TABLE
from engine.control import controls_of
from engine.errors import ConfigError, ControlError, TidecastError


def test_a_text_stands_for_a_modulator() -> None:
    found = parse("strength Sine beats=8 depth=0.3 phase=.25", 1)
    assert found == Modulator(target="strength", shape="sine", beats=8.0, depth=0.3, phase=0.25)
    assert parse("  ", 1) is None
    usual = parse("mix square", 1)
    assert usual is not None and (usual.beats, usual.hz, usual.direction) == (4.0, 0.0, "both")
    hits = parse("mix envelope hz=2", 1)
    assert hits is not None and (hits.beats, hits.hz, hits.direction) == (0.0, 2.0, "up")
    follows = parse("detail follow source=midi/nano_KONTROL/7 high=127", 1)
    assert follows is not None and follows.signals == ("midi/nano_KONTROL/7",) and follows.beats == 0.0


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("/tidecast/mix  SINE beats=4 depth=0.5", "mix sine"),
        ("/mix sine hz=0.25 phase=0", "mix sine hz=0.25"),
        ("prompt/2/weight drunk seed=7 polarity=up", "weight_2 drunk polarity=up seed=7"),
        ("lora_1 envelope trigger=audio/onset release=200", "lora_1 envelope trigger=audio/onset release=200"),
        ("reproject follow source=osc/live/volume low=0 high=127", "reproject follow high=127 source=osc/live/volume"),
        ("", ""),
    ],
)
def test_it_is_stored_in_its_shortest_form(text: str, stored: str) -> None:
    assert resolved(text, 1, TABLE) == stored
    assert resolved(stored, 1, TABLE) == stored


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("strength", "Modulator 3: 'strength' is not understood. Write target and shape"),
        ("strength wobble", "Modulator 3: shape: 'wobble' is not valid"),
        ("strength sine depth=2", "Modulator 3: depth: '2' is not valid: input should be less than or equal to 1"),
        ("strength sine depth=nan", "Modulator 3: depth: 'nan' is not valid"),
        ("strength sine deep=1", "Modulator 3: 'deep=1' is not understood. Write key=value; keys are beats, hz"),
        ("strength sine beats=1 beats=2", "Modulator 3: beats is there twice"),
        ("strength sine beats=1 hz=2", "Modulator 3: give either beats"),
        ("strength sine beats=0", "Modulator 3: give either beats"),
        ("strength follow", "Modulator 3: source is missing"),
        ("strength follow source=volume", "Modulator 3: source: 'volume' is not valid"),
        ("strength follow source=osc/a beats=4", "Modulator 3: beats and hz belong"),
        ("strength follow source=osc/a low=1 high=1", "Modulator 3: low and high are the same"),
        ("strength sine source=osc/a", "Modulator 3: source belongs to the shape follow"),
        ("x" * (LONGEST_TEXT + 1), f"Modulator 3: its text has {LONGEST_TEXT + 1} characters"),
        ("nothing sine", "Modulator 3: target: there is no control named 'nothing'"),
        ("/strength/norm sine", "Modulator 3: target: there is no control named '/strength/norm'"),
        ("steps sine", "Modulator 3: target: steps cannot be modulated: it has steps. Choose a fader"),
        ("fit sine", "Modulator 3: target: fit cannot be modulated: it is a choice of words"),
        ("black square", "Modulator 3: target: black cannot be modulated: it is a switch"),
        ("prompt_1 sine", "Modulator 3: target: prompt_1 cannot be modulated: it is a text"),
        ("tempo_bpm sine", "Modulator 3: target: tempo_bpm cannot be modulated: it does not belong to the look"),
        ("mod_depth sine", "Modulator 3: target: mod_depth cannot be modulated: it does not belong to the look"),
    ],
)
def test_errors_name_the_modulator_and_the_key(text: str, words: str) -> None:
    with pytest.raises(ControlError) as error:
        resolved(text, 3, TABLE)
    assert str(error.value).startswith(words)
    assert error.value.address == "/tidecast/mod/3"


def test_a_configuration_is_checked_before_the_start() -> None:
    assert start_value("mod_2", "strength sine beats=2") == "strength sine beats=2"
    for text, reason in (("strength wobble", "shape"), ("steps sine", "it has steps")):
        with pytest.raises(ConfigError, match=f"mod_2 = .*Modulator 2.*{reason}"):
            start_value("mod_2", text)


@given(st.text(max_size=80))
@settings(deadline=None, max_examples=40)
def test_no_text_does_anything_but_be_understood_or_refused(text: str) -> None:
    try:
        stored = resolved(text, 1, TABLE)
    except TidecastError:
        return
    assert stored == resolved(stored, 1, TABLE)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_any_keys_are_understood_or_refused(data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from(KEYS), max_size=5, unique=True))
    values = st.one_of(st.floats().map(str), st.sampled_from(["both", "up", "down", "audio/low", "1", "0", "-1", ""]))
    words = [f"{key}={data.draw(values)}" for key in keys]
    text = " ".join(["mix", data.draw(st.sampled_from(NAMES)), *words])
    try:
        found = parse(text, 1)
    except TidecastError:
        return
    assert found is not None and parse(found.text(), 1) == found


def test_there_are_as_many_as_are_promised_and_every_fader_of_the_look_has_a_reading() -> None:
    rows = {control.name: control for control in controls_of(ModulationControls)}
    assert [name for name in rows if name != "mod_depth"] == [f"mod_{n}" for n in range(1, SLOTS + 1)]
    moved = {control.name for control in TABLE.controls if can_be_modulated(control)}
    assert {"strength", "motion", "mix", "reproject", "detail", "weight_3", "lora_8"} <= moved
    assert {reading.name for reading in readings_of(TABLE.owners)} == {f"modulated_{n}" for n in moved} | {
        "mod_signals"
    }


def test_a_snapshot_holds_modulators_only_if_asked() -> None:
    assert "mod_1" not in stored_names(TABLE) and "mod_depth" not in stored_names(TABLE)
    assert {"mod_1", "mod_16", "mod_depth"} <= set(stored_names(TABLE, ("modulation",)))
