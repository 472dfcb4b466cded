"""Modulators on the live controls: values of a moment, a hand on a fader, snapshots, signals, commands, telemetry."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import pytest

from bridge.control.modulation.controls import SLOTS
from bridge.control.osc.client import OscClient
from bridge.control.osc.server import OscServer
from bridge.control.snapshots import Snapshots
from engine.control import PREFIX
from engine.controls import Controls
from tests.bridge.control.modulation.stage import BEGIN_NS, HAND, SECOND, SHOW, Stage
from tests.support.browser import wait


def test_a_cycle_in_beats_begins_with_the_bar_and_is_known_at_any_moment(stage: Stage) -> None:
    stage.store.set("strength", 0.5)
    assert stage.say("/mod/1", "strength sine beats=4 depth=0.6") == []
    for seconds in (2.0, 0.25, 100.125, 600.0, 3.3):  # a beat takes half a second, a cycle two
        expected = 0.5 + 0.3 * math.sin(2.0 * math.pi * (seconds / 2.0 % 1.0))
        assert stage.at(seconds).value("strength") == pytest.approx(expected, abs=1e-9)
    assert stage.base("strength") == 0.5


def test_a_cycle_in_hz_begins_when_it_is_set_and_another_rate_makes_no_jump(stage: Stage) -> None:
    stage.at(5.0).say("/mod/1", "mix up hz=0.1 depth=-1 polarity=up")
    assert stage.value("mix") == pytest.approx(1.0)
    assert stage.at(10.0).value("mix") == pytest.approx(0.5)
    stage.say("/mod/set", 1, "hz", 0.2)
    assert stage.value("mix") == pytest.approx(0.5)
    assert stage.at(11.0).value("mix") == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("keys", "low", "high"),
    [
        ("depth=0.4", 0.3, 0.7),
        ("depth=0.4 polarity=up", 0.5, 0.9),
        ("depth=0.4 polarity=down", 0.1, 0.5),
        ("depth=-0.4 polarity=up", 0.1, 0.5),
        ("depth=0.4 offset=0.2", 0.5, 0.9),
        ("depth=1 offset=1", 1.0, 1.0),
        ("depth=1", 0.0, 1.0),
    ],
)
def test_depth_offset_and_polarity(stage: Stage, keys: str, low: float, high: float) -> None:
    stage.store.set("strength", 0.5)
    assert stage.say("/mod/1", f"strength triangle {keys}") == []
    values = [stage.at(n / 100.0).value("strength") for n in range(400)]
    assert (min(values), max(values)) == pytest.approx((low, high), abs=1e-9)


def test_depth_is_a_share_of_the_range_of_the_control(stage: Stage) -> None:
    stage.say("/mod/1", "lora_1 square depth=0.5")  # -2 to 2
    assert stage.at(0.1).value("lora_1") == 1.0 and stage.at(1.1).value("lora_1") == -1.0
    stage.store.set("mod_depth", 0.5)
    assert stage.at(0.1).value("lora_1") == 0.5
    stage.store.set("mod_depth", 0.0)
    assert stage.store.modulated(stage.ns) is stage.store.snapshot, "nothing differs, so nothing is sent to the engine"


def test_modulators_of_one_control_add_up_and_stay_in_its_range(stage: Stage) -> None:
    stage.store.set("strength", 0.5)
    stage.say("/mod/1", "strength square depth=0.4")
    stage.say("/mod/2", "strength square beats=8 depth=0.2")
    assert [round(stage.at(t).value("strength"), 9) for t in (0.1, 1.1, 2.1, 3.1)] == [0.8, 0.4, 0.6, 0.2]
    stage.say("/mod/3", "strength square beats=8 depth=1")
    assert [stage.at(t).value("strength") for t in (0.1, 3.1)] == [1.0, 0.0]


def test_each_control_is_evaluated_for_the_moment_at_which_it_is_seen() -> None:
    stage = Stage(lead_ms=lambda name: 250.0 if name == "strength" else 0.0)
    try:
        for number, name in enumerate(("strength", "mix"), 1):
            stage.store.set(name, 0.5)
            stage.say(f"/mod/{number}", f"{name} triangle beats=4 depth=1")
        assert stage.at(0.0).value("mix") == pytest.approx(0.5)
        assert stage.value("strength") == pytest.approx(0.75), "an eighth of a cycle further"
    finally:
        stage.close()


def test_the_beat_may_stand_still_and_go_on_in_another_tempo(stage: Stage) -> None:
    stage.store.set("strength", 0.5)
    stage.say("/mod/1", "strength triangle beats=4 depth=1")
    stage.say("/mod/2", "mix envelope beats=1 depth=-1 release=100")
    running = stage.tempo
    stage.tempo = replace(running, line=replace(running.line, beat=1.0, bpm=0.0))
    assert stage.at(0.0).value("strength") == stage.at(50.0).value("strength") == pytest.approx(1.0)
    assert stage.at(50.0).value("mix") == stage.at(51.0).value("mix")
    stage.tempo = replace(running, line=replace(running.line, ns=float(BEGIN_NS + 50 * SECOND), beat=1.0, bpm=60.0))
    assert stage.at(51.0).value("strength") == pytest.approx(0.5)


def test_a_hand_wins_at_once_and_the_modulation_comes_back_around_the_new_base(stage: Stage) -> None:
    stage.store.set("strength", 0.3)
    stage.say("/mod/1", "strength square depth=0.4 back=2")
    assert stage.at(8.1).value("strength") == pytest.approx(0.5)
    stage.say("/strength", 0.6)
    assert stage.value("strength") == 0.6
    found = [stage.at(8.1 + n / 10.0).value("strength") - 0.6 for n in range(21)]
    sizes = [abs(value) for value in found]
    assert sizes == sorted(sizes) and sizes[0] == 0.0 and sizes[-1] == pytest.approx(0.2)
    assert max(b - a for a, b in itertools.pairwise(sizes)) < 0.02, "no jump in size"
    stage.say("/strength", 0.6)
    assert abs(stage.value("strength") - 0.6) == pytest.approx(0.2), "who sends the same value again moves nothing"
    stage.say("/prompt", "a text")
    stage.say("/mod/2", "weight_1 square depth=0.4")
    stage.say("/prompt/1/weight", 0.5)
    assert stage.value("weight_1") == 0.5


def test_with_back_0_the_hand_sets_the_base_and_nothing_else(stage: Stage) -> None:
    stage.say("/mod/1", "strength square depth=0.4 back=0")
    stage.at(0.1).say("/strength", 0.5)
    assert stage.value("strength") == pytest.approx(0.7)


def test_a_show_moves_the_base_and_the_modulation_goes_on(stage: Stage) -> None:
    stage.say("/mod/1", "strength square depth=0.4")
    stage.at(0.1)
    for base in (0.3, 0.4, 0.5):  # a snapshot that glides, a cue
        stage.store.set("strength", base, SHOW)
        assert stage.value("strength") == pytest.approx(base + 0.2)


def test_a_snapshot_holds_base_values_and_brings_modulators_back_if_asked(stage: Stage, tmp_path) -> None:
    snapshots = Snapshots(stage.store, tmp_path / "snapshots.json", stage.telemetry.error).start()
    try:
        stage.store.set("strength", 0.5)
        stage.say("/mod/1", "strength square depth=0.4")
        stage.at(0.1).say("/snapshot/save", 1)
        stage.say("/snapshot/save", 2, "modulation")
        assert snapshots.all()[1]["strength"] == 0.5 and "mod_1" not in snapshots.all()[1]
        stage.store.set("strength", 0.2)
        stage.say("/mod/clear")
        assert stage.value("strength") == 0.2 and stage.modulation.modulators == (None,) * SLOTS
        stage.say("/snapshot/recall", 1)
        assert stage.value("strength") == 0.5
        stage.say("/snapshot/recall", 2)
        assert stage.value("strength") == pytest.approx(0.7) and stage.base("strength") == 0.5
    finally:
        snapshots.stop()


def test_keys_are_changed_one_by_one_and_errors_name_them(stage: Stage) -> None:
    stage.say("/mod/4", "strength sine")
    assert stage.say("/mod/set", 4, "depth", 0.25) == []
    assert stage.say("/mod/set", 4, "beats", 8) == [] and stage.base("mod_4") == "strength sine beats=8 depth=0.25"
    assert stage.say("/mod/set", 4, "hz", "0.5") == [] and stage.base("mod_4") == "strength sine hz=0.5 depth=0.25"
    assert stage.say("/mod/set", 4, "shape", "drunk") == []
    assert stage.say("/mod/set", 4, "target", "mix") == [] and stage.base("mod_4") == "mix drunk hz=0.5 depth=0.25"
    for args, words in (
        ((4, "depth", 3), "Modulator 4: depth: 3 is not valid"),
        ((4, "deep", 3), "Modulator 4: there is no key 'deep'. Keys are beats"),
        ((4, "target", "steps"), "Modulator 4: target: steps cannot be modulated: it has steps"),
        ((5, "depth", 1), "Modulator 5: there is none (there are: 4)."),
        ((99, "depth", 1), "Modulator 99: there is none"),
        ((4, "depth"), "The arguments are number, key, value."),
    ):
        ((_, reason),) = stage.say("/mod/set", *args)
        assert reason.startswith(words)
    ((address, reason),) = stage.say("/mod/2", "seed sine")
    assert address == f"{PREFIX}/mod/2" and "Modulator 2: target: seed cannot be modulated: it has steps" in reason
    assert stage.base("mod_2") == "" and stage.base("mod_4") == "mix drunk hz=0.5 depth=0.25"


def test_a_retrigger_begins_a_cycle_now(stage: Stage) -> None:
    for number, text in enumerate(("strength up beats=4 depth=1 polarity=up", "mix up hz=0.5 depth=-1 polarity=up"), 1):
        stage.say(f"/mod/{number}", text)
    stage.store.set("strength", 0.0)
    stage.at(20.7)
    for seconds, number in ((20.7, 1), (33.3, 2)):
        stage.at(seconds).say("/mod/retrigger", number)
        assert stage.value(("strength", "mix")[number - 1]) == pytest.approx(number - 1, abs=1e-9)
    assert stage.value("strength") == pytest.approx((33.3 - 20.7) / 2.0 % 1.0, abs=1e-6)
    stage.at(40.3).say("/mod/retrigger/all")
    assert (stage.value("strength"), stage.value("mix")) == pytest.approx((0.0, 1.0), abs=1e-9)
    before = stage.at(41.0).value("strength")
    assert stage.say("/mod/retrigger", 0) == [] and stage.value("strength") == before, "a button that is released"
    assert stage.say("/mod/retrigger", 9) != []


def test_a_signal_that_rises_begins_an_envelope_once(stage: Stage) -> None:
    stage.store.set("strength", 0.2)
    stage.say("/mod/1", "strength envelope trigger=audio/onset depth=0.5 attack=10 release=100")
    assert stage.at(1.0).value("strength") == 0.2
    for n in range(10):  # it stays high for some time
        stage.signals.put("audio/onset", 1.0, stage.at(2.0 + n / 100.0).ns)
        stage.value("strength")
    assert stage.at(2.11).value("strength") == pytest.approx(0.2 + 0.5 / math.e)
    assert stage.at(5.0).value("strength") == pytest.approx(0.2, abs=1e-6)
    stage.signals.put("audio/onset", 0.0, stage.ns)
    stage.value("strength")
    stage.signals.put("audio/onset", 0.9, stage.at(5.5).ns)
    assert stage.at(5.51).value("strength") == pytest.approx(0.7)
    stage.signals.put("audio/onset", 0.9, stage.at(7.5).ns)  # one that is only put when it hits
    assert stage.at(7.51).value("strength") == pytest.approx(0.7)
    for n, level in enumerate((1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.68, 0.66, 0.65, 1.0)):  # two hits, 100 ms apart
        stage.signals.put("audio/onset", level, stage.at(9.0 + n / 100.0).ns)
        stage.value("strength")
    assert stage.at(9.11).value("strength") == pytest.approx(0.7), "the second hit, while the first still falls"


def test_a_follower_is_scaled_and_holds_what_it_heard_last(stage: Stage) -> None:
    stage.store.set("strength", 0.0)
    stage.say("/mod/1", "strength follow source=osc/live/volume low=-60 high=0 depth=1 attack=0 release=0")
    assert stage.at(0.0).value("strength") == 0.0
    for level, value in ((-30.0, 0.5), (0.0, 1.0), (20.0, 1.0), (-90.0, 0.0), (-45.0, 0.25)):
        stage.signals.put("osc/live/volume", level, stage.ns)
        stage.ns += SECOND
        assert stage.value("strength") == pytest.approx(value)
    stage.ns += 1000 * SECOND
    assert stage.value("strength") == pytest.approx(0.25)
    stage.say("/mod/set", 1, "release", 500)
    stage.signals.put("osc/live/volume", -60.0, stage.ns)
    stage.value("strength")
    stage.ns += SECOND // 2
    assert stage.value("strength") == pytest.approx(0.25 / math.e, abs=1e-6)


def test_the_modulated_value_is_told_ten_times_a_second_at_most_and_the_base_is_echoed(stage: Stage) -> None:
    told: list[float] = []
    real = stage.telemetry.update

    def update(**readings: object) -> None:
        if "modulated_strength" in readings:
            told.append(time.monotonic())
        real(**readings)

    stage.telemetry.update = update  # type: ignore[method-assign]
    stage.store.set("strength", 0.5)
    stage.say("/mod/1", "strength square depth=0.4")
    stage.at(0.1)
    wait(lambda: stage.telemetry.snapshot().get("modulated_strength") == 0.7, "the value is told")
    heard: list[str] = []
    unlisten = stage.store.listen(lambda name, value, origin: heard.append(name))
    began, count = time.monotonic(), len(told)
    while time.monotonic() < began + 0.6:
        stage.store.modulated(stage.ns)
    assert len(told) - count <= 10.0 * (time.monotonic() - began) + 1
    assert heard == [], "no modulator writes"
    unlisten()
    stage.say("/mod/1", "")
    wait(lambda: stage.telemetry.snapshot().get("modulated_strength") == 0.5, "the base is told when it ends")
    stage.say("/strength", 0.1)
    wait(lambda: stage.telemetry.snapshot().get("modulated_strength") == 0.1, "and follows it")


def test_numbers_at_foreign_osc_addresses_are_followed_and_others_refused_as_before(stage: Stage) -> None:
    with (
        OscServer(stage.store, stage.telemetry, host="127.0.0.1", port=0, signals=stage.signals) as osc,
        OscClient(*osc.address) as desk,
    ):
        desk.send("/tidecast/mod/1", ("strength follow source=osc/live/volume depth=1 attack=0 release=0",))
        desk.send("/tidecast/strength", (0.0,))
        wait(lambda: stage.base("mod_1") != "" and stage.base("strength") == 0.0, "the modulator")
        desk.send("/live/volume", (0.75,))
        wait(lambda: stage.signals.newest("osc/live/volume") is not None, "the number")
        stage.ns += 3 * SECOND
        assert stage.value("strength") == pytest.approx(0.75)
        desk.send("/live/pan", (0.5,))
        refused = desk.ask(lambda message: message.address == "/tidecast/error", 10.0)
        assert refused is not None and refused.args[0] == "/live/pan", "nobody follows it, and the other is no error"
        assert stage.signals.newest("osc/live/pan") is not None, "but it can be chosen"


def test_a_defect_leaves_the_faders_and_is_told_once(stage: Stage) -> None:
    stage.say("/mod/1", "strength square depth=0.4")
    stage.tempo = None  # type: ignore[assignment]
    for _ in range(5):
        assert stage.value("strength") == stage.base("strength")
    wait(lambda: stage.errors, "it is told")
    assert len(stage.errors) == 1 and stage.errors[0][0] == "modulation"


def test_what_the_configuration_says_runs_from_the_start_and_stops_with_the_bridge() -> None:
    stage = Stage()
    stage.store.set_many({"mod_16": "strength square depth=0.4", "strength": 0.5})
    stage.close()
    assert stage.at(0.1).value("strength") == 0.5
    stage.modulation.start()
    try:
        assert stage.value("strength") == pytest.approx(0.7)
        assert stage.store.modulated(stage.ns).of(Controls).strength == pytest.approx(0.7)
    finally:
        stage.close()


def test_who_moves_a_fader_is_told_only_the_base(stage: Stage) -> None:
    heard: list[tuple[str, object, str]] = []
    stage.store.listen(lambda name, value, origin: heard.append((name, value, origin.name)))
    stage.say("/mod/1", "strength sine depth=1")
    stage.at(0.5).say("/strength/midi", 127)
    assert heard == [("mod_1", "strength sine depth=1", HAND.name), ("strength", 1.0, HAND.name)]
