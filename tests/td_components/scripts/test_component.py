"""The component's own scripts in the strict fake TouchDesigner, over real UDP against the real control store.

TouchDesigner itself never ran here; the fake knows only documented names.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from bridge.control.modulation.controls import SLOTS
from bridge.control.origin import Origin, Trust
from bridge.control.tempo.service import TempoService
from bridge.table import TABLE, start_values
from engine.control import Kind
from td_components import generate
from td_components.definition import graph, network, pages
from td_components.definition.spec import HERE, Style
from tests.fakes.touchdesigner import FakeTouchDesigner
from tests.fakes.touchdesigner_operators import ParMode
from tests.support.td_world import Bridge, World, connected

DESK = Origin("desk", Trust.MACHINE)
NAMED = {
    "output_size": "1280x720",
    "engine_size": "512x288",
    "engine_model": "wan21-tiny",
    "audio_source": "ndi",
    "mask_key": "#0020ff",
    "mask_input": "pattern:waves",
    "mask_background_input": "pattern:dance",
    "mask_background_color": "#102030",
    **{f"mod_{number}": f"mix sine hz={number}" for number in range(1, SLOTS + 1)},
}
OTHER = {
    Kind.TEXT: "Ein Fluß aus Glas – 水晶の川 🌊",
    Kind.BOOL: True,
}


def other_value(control):
    """A valid value that is not the default."""
    if control.name in NAMED:
        return NAMED[control.name]
    if control.name == "input":
        return f"ndi:{OTHER[Kind.TEXT]}"
    if control.kind in OTHER:
        return (not control.default) if control.kind is Kind.BOOL else OTHER[control.kind] + control.name
    if control.kind is Kind.CHOICE:
        return control.choices[-1]
    value = control.low + 0.25 * (control.high - control.low)
    return round(value) if control.kind is Kind.INT else value


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    yield made
    made.td.close()


def test_the_builder_builds_the_same_graph_as_the_expanded_tree(world):
    table = generate.load_table()
    spec = graph.of(network.component(table, table["version"]))
    built = json.loads(Path(world.td.project.folder, "Tidecast.tox").read_text())
    assert graph.differences(spec, built) == []
    assert [line for line in world.td.printed if "differs" in line] == []


def test_a_name_that_touchdesigner_lacks_is_reported_by_the_builder(tmp_path):
    fake = FakeTouchDesigner(tmp_path)
    text = (HERE / "build_in_td.py").read_text().replace('"resolutionw": [', '"resolutionx": [')
    fake.run_script(text)
    assert "this TouchDesigner differs: fit has no parameter resolutionx" in fake.printed


def test_the_fake_is_strict(world):
    comp = world.comp
    with pytest.raises(AttributeError):
        comp.par.Nothing = 1
    with pytest.raises(AttributeError):
        comp.op("osc_in").sendOSC("/x", [])
    with pytest.raises(TypeError):
        comp.par.Strength = "a lot"
    with pytest.raises(ValueError):
        comp.par.Fit = "crop"
    with pytest.raises(AttributeError):
        _ = world.td.td.noiseTOP
    with pytest.raises(ValueError):
        comp.op("log").inputConnectors[0].connect(comp.op("fit"))
    with pytest.raises(AttributeError):
        comp.op("fit").par.fit.notAnAttribute = 1


def test_every_expression_has_a_value_of_its_parameters_kind(world):
    world.td.frame()
    evaluated = 0
    for node in world.comp.children.values():
        for name in node.touched:
            par = node.pars[name]
            if par.mode is ParMode.EXPRESSION:
                value = par.eval()
                assert par.isMenu <= (value in par.menuNames), (node.name, name, value)
                assert par.isNumber <= isinstance(value, (int, float)), (node.name, name, value)
                evaluated += 1
    assert evaluated > 12


def test_offline_passes_the_input_through_and_says_so(world):
    world.td.frame()
    assert not world.online() and world.index == 0
    assert world.par.Statusstate.eval() == "offline"
    assert world.comp.op("readings")[0, 1] == "0"


def test_every_control_reaches_the_store_and_comes_back(tmp_path):
    with connected(tmp_path) as (world, bridge):
        for control in TABLE.controls:
            world.comp.pars[pages.control_name(control.name)].val = other_value(control)
        wanted = {c.name: other_value(c) for c in TABLE.controls}

        def arrived():
            held = bridge.store.values()
            return all(held[n] == (pytest.approx(v) if isinstance(v, float) else v) for n, v in wanted.items())

        world.until(arrived, what="every control")
        bridge.store.set("strength", 0.9, DESK)
        bridge.store.set("prompt_2", "von außen", DESK)
        bridge.store.set("fit", "contain", DESK)
        world.until(lambda: world.par.Strength.eval() == pytest.approx(0.9), what="an echo")
        world.until(lambda: world.par.Prompt2.eval() == "von außen" and world.par.Fit.eval() == "contain")
        assert world.comp.op("fit").par.fit.eval() == "fitbest"


def test_unicode_and_20_kb_prompts_arrive_whole(tmp_path):
    long = "".join(f"{n} 波の upon the shore, " for n in range(1200))
    long = long.encode()[:20_480].decode(errors="ignore")
    assert len(long.encode()) > 20_000
    with connected(tmp_path) as (world, bridge):
        for slot in range(1, 5):
            world.comp.pars[f"Prompt{slot}"].val = f"{slot}: {long}"
        world.until(lambda: bridge.store.snapshot.value("prompt_4") == f"4: {long}", what="the long prompts")
        assert bridge.store.snapshot.value("prompt_1") == f"1: {long}"
        world.frames(0.5)  # the echoes of all four leave the socket, whose buffer would not hold a fifth
        bridge.store.set("prompt_1", long, DESK)
        world.until(lambda: world.par.Prompt1.eval() == long, what="the long echo")


def test_every_reading_is_shown_and_becomes_a_channel(tmp_path):
    with connected(tmp_path) as (world, bridge):
        values = {r.name: f"text {r.name}" if r.kind is Kind.TEXT else 3 + i for i, r in enumerate(TABLE.readings)}
        values["state"] = "running"
        del values["heartbeat"]  # counted by the server itself
        bridge.telemetry.update(**values)
        world.until(lambda: world.par.Statusvram.eval() == values["vram"], what="the readings")
        world.until(lambda: world.par.Statusmodsignals.eval() == values["mod_signals"], what="the one told each second")
        world.until(lambda: world.par.Statusheartbeat.eval() >= 1, what="the heartbeat")
        table = dict(world.comp.op("readings").rows)
        for reading in TABLE.readings:
            if reading.name == "heartbeat":
                continue
            shown = world.comp.pars[pages.reading_name(reading.name)].eval()
            assert shown == values[reading.name]
            if reading.kind is not Kind.TEXT:
                assert float(table[reading.name]) == values[reading.name]
        assert table["online"] == "1"


def test_a_lost_tidecast_is_noticed_and_told_everything_when_it_is_back(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.par.Strength = 0.33
        world.par.Prompt3 = "kept by the component"
        world.until(lambda: bridge.store.snapshot.value("prompt_3") == "kept by the component")
        assert world.index == 1
        bridge.stop()
        gone = time.monotonic()
        world.until(lambda: not world.online(), what="the offline sign")
        assert time.monotonic() - gone > 2.0, "a pause of a moment must not count as gone"
        assert world.index == 0 and "passed through" in world.log()[-1]
        world.par.Steps = 4
        world.frames(0.1)
        again = Bridge(bridge.port)
        try:
            wanted = {"prompt_3": "kept by the component", "strength": pytest.approx(0.33), "steps": 4}
            world.until(lambda: {name: again.store.snapshot.value(name) for name in wanted} == wanted, what="all of it")
            assert world.online() and world.index == 1
        finally:
            again.stop()


def test_a_tidecast_that_restarts_within_the_silence_is_noticed_by_its_heartbeat(tmp_path, monkeypatch):
    with connected(tmp_path) as (world, bridge):
        world.par.Strength = 0.7
        with monkeypatch.context() as fast:  # it has run for long: the next one's count is lower, whenever it is seen
            fast.setattr("bridge.control.osc.server.HEARTBEAT_HZ", 1000.0)
            world.until(lambda: world.par.Statusheartbeat.eval() >= 30, what="thirty heartbeats")
            bridge.stop()
        world.frames(1.0)
        again = Bridge(bridge.port)
        try:
            world.until(lambda: again.store.snapshot.value("strength") == pytest.approx(0.7), what="the resend")
            assert world.par.Strength.eval() == pytest.approx(0.7)
            assert "Tidecast does not answer: the input is passed through" not in world.log()
            assert "Tidecast was restarted" in world.log()
        finally:
            again.stop()


def test_when_the_engine_is_ready_again_everything_is_sent_and_onready_is_called(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.comp.op("callbacks").text = (
            "def onReady(comp):\n    comp.store('ready', comp.fetch('ready', 0) + 1)\n"
            "def onError(comp, topic, reason):\n    comp.store('error', (topic, reason))\n"
            "def onPromptDone(comp, text):\n    comp.store('prompt', text)\n"
        )
        bridge.state("loading", prompt="first")
        world.until(lambda: world.par.Statusstate.eval() == "loading")
        world.until(lambda: world.par.Statusprompt.eval() == "first")
        bridge.state("running")
        world.until(lambda: world.comp.fetch("ready", 0) == 1, what="onReady")
        bridge.telemetry.update(prompt="second")
        world.until(lambda: world.comp.fetch("prompt") == "second", what="onPromptDone")
        bridge.telemetry.error("engine", "Out of memory. Lower the size.")
        world.until(lambda: world.comp.fetch("error") is not None, what="onError")
        assert world.comp.fetch("error") == ("engine", "Out of memory. Lower the size.")
        assert world.par.Lasterror.eval() == "engine: Out of memory. Lower the size."


def test_a_failing_callback_is_logged_and_the_link_lives_on(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.comp.op("callbacks").text = "def onError(comp, topic, reason):\n    1 / 0\n"
        bridge.telemetry.error("engine", "Something.")
        world.until(lambda: any("ZeroDivisionError" in line for line in world.log()))
        world.par.Usecallbacks = False
        world.par.Strength = 0.2
        world.until(lambda: bridge.store.snapshot.value("strength") == pytest.approx(0.2))


def test_an_echo_never_pulls_against_the_hand(tmp_path):
    with connected(tmp_path) as (world, bridge):
        seen = []
        for step in range(60):
            world.par.Strength = step / 60
            world.td.frame()
            seen.append(world.par.Strength.eval())
            time.sleep(0.005)
        assert seen == [pytest.approx(step / 60) for step in range(60)]
        bridge.store.set("strength", 0.05, DESK)
        world.until(lambda: world.par.Strength.eval() == pytest.approx(0.05), what="the last word of the desk")


def test_a_change_by_hand_outlives_an_echo_that_came_in_the_same_frame(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.frames(0.5)  # the echoes of the greeting are over
        told = []
        bridge.store.listen(lambda name, value, origin: told.append(name))
        desk = {"input": "ndi:desk", "strength": 0.125, "prompt_1": "desk"}
        bridge.store.set_many(desk, DESK)
        time.sleep(0.3)  # the echoes lie in the socket, and the next frame reads them before it tells changes
        hand = {"input": "ndi:hand", "strength": 0.75, "prompt_1": "hand"}
        for name, value in hand.items():
            world.comp.pars[pages.control_name(name)].val = value
        world.td.frame()
        assert {n: world.comp.pars[pages.control_name(n)].eval() for n in hand} == hand
        world.until(lambda: {n: bridge.store.values()[n] for n in hand} == hand, what="the hand's values")
        world.frames(0.5)
        assert {n: world.comp.pars[pages.control_name(n)].eval() for n in hand} == hand
        assert sorted(told) == sorted([*desk, *hand]), "each change is told once"


def test_an_exported_parameter_is_left_to_its_owner(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.par.Motion.expr = "0.25"
        world.td.changed(world.par.Motion)
        world.until(lambda: bridge.store.snapshot.value("motion") == 0.25)
        bridge.store.set("motion", 0.8, DESK)
        world.frames(0.6)
        assert world.par.Motion.mode is ParMode.EXPRESSION and world.par.Motion.eval() == 0.25


def test_pulses_are_commands(tmp_path):
    with connected(tmp_path) as (world, bridge):
        saved = []
        bridge.store.on("snapshot_save", lambda args, caller: saved.append(("save", *args)))
        bridge.store.on("snapshot_recall", lambda args, caller: saved.append(("recall", *args)))
        world.par.Snapshotnumber = 7
        world.par.Snapshotseconds = 2.5
        for pulse in ("Reset", "Anchor", "Snapshotsave", "Snapshotrecall"):
            world.press(pulse)
        world.until(lambda: len(saved) == 2)
        assert saved == [("save", 7), ("recall", 7, 2.5)]
        assert (bridge.store.snapshot.value("resets"), bridge.store.snapshot.value("anchors")) == (1, 1)


def test_fetch_takes_the_values_of_the_other_side(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.par.Onconnect = "fetch"
        world.frames(0.1)
        world.par.Motion = 0.25  # the last of what is under way: behind it no greeting can overwrite the desk
        world.until(lambda: bridge.store.snapshot.value("motion") == 0.25)
        bridge.store._snapshot = start_values({"strength": 0.11, "prompt_1": "from the desk"})
        world.press("Fetch")
        world.until(lambda: world.par.Prompt1.eval() == "from the desk", what="the fetched values")
        world.until(lambda: world.par.Strength.eval() == pytest.approx(0.11))


def test_presets_survive_and_set_the_engine(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.par.Strength, world.par.Prompt1, world.par.Preset = 0.2, "calm", 3
        world.press("Storepreset")
        world.par.Strength, world.par.Prompt1 = 0.9, "storm"
        world.until(lambda: bridge.store.snapshot.value("prompt_1") == "storm")
        world.press("Recallpreset")
        world.until(lambda: bridge.store.snapshot.value("prompt_1") == "calm")
        world.until(lambda: bridge.store.snapshot.value("strength") == pytest.approx(0.2))
        json.dumps(world.comp.fetch("presets", search=False))
        world.comp.parent().store("presets", {"9": {"Strength": 1.0}})  # of another component around it
        world.par.Preset = 9
        world.press("Recallpreset")
        assert "Nothing is stored under 9" in world.par.Lasterror.eval()


def test_presets_hold_the_look_only_and_those_of_older_versions_are_recalled_so(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.par.Black, world.par.Seed, world.par.Preset = True, 7, 3
        world.press("Storepreset")
        kept = world.comp.fetch("presets", search=False)
        assert "Strength" in kept["3"]
        assert not {"Bypass", "Freeze", "Black", "Input", "Seed", "Slolatency", "Record"} & set(kept["3"])
        world.comp.store("presets", {"3": {"Strength": 0.25, "Black": False, "Seed": 1, "Record": True}})
        world.press("Recallpreset")
        world.until(lambda: bridge.store.snapshot.value("strength") == 0.25)
        assert (world.par.Black.eval(), world.par.Seed.eval(), world.par.Record.eval()) == (True, 7, False)


def test_a_reconnect_takes_no_panic_button_off(tmp_path):
    with connected(tmp_path) as (world, bridge):
        bridge.state("loading")
        world.until(lambda: world.par.Statusstate.eval() == "loading")
        bridge.store._snapshot = bridge.store.snapshot.replaced({"black": True})  # the echo is lost on the network
        world.par.Strength = 0.75
        bridge.state("running")  # from now on everything is sent
        world.until(lambda: bridge.store.snapshot.value("strength") == 0.75)
        world.frames(0.3)
        assert bridge.store.snapshot.value("black") is True


def test_a_reconnect_sends_no_tempo(tmp_path):
    """It may be that of a session with other programs."""
    with connected(tmp_path) as (world, bridge):
        world.par.Tempobpm = 90.0
        world.until(lambda: bridge.store.snapshot.value("tempo_bpm") == 90.0)
        bridge.state("loading")
        world.until(lambda: world.par.Statusstate.eval() == "loading")
        bridge.store.set("tempo_bpm", 128.0)
        world.par.Strength = 0.75
        bridge.state("running")  # from now on everything else is sent
        world.until(lambda: bridge.store.snapshot.value("strength") == 0.75)
        world.until(lambda: world.par.Tempobpm.eval() == 128.0)
        world.frames(0.3)
        assert bridge.store.snapshot.value("tempo_bpm") == 128.0


def test_the_beat_follows_touchdesigners_tempo_and_leaves_it_again(tmp_path):
    with connected(tmp_path) as (world, bridge):
        beat = TempoService(bridge.store, bridge.telemetry).start()
        errors = []
        bridge.telemetry.listen_errors(lambda *error: errors.append(error))

        def in_step():
            ns = time.monotonic_ns()
            away = (beat.tempo.beat_at(ns) - world.td.beats() + 0.5) % 1.0 - 0.5
            return abs(beat.tempo.shown_bpm - world.td.bpm) < 0.5 and abs(away) < 0.1

        try:
            assert bridge.store.snapshot.value("tempo_source") == "internal"
            world.td.set_tempo(133.0)
            world.par.Followtempo = True
            world.until(in_step, what="the tempo")
            assert beat.tempo.source == "osc" and world.par.Temposource.eval() == "osc"
            world.td.set_tempo(92.0)
            world.until(in_step, what="another tempo")
            world.par.Followtempo = False
            world.until(lambda: beat.tempo.source == "internal", what="the end")
            assert beat.tempo.state == "running" and abs(beat.tempo.shown_bpm - 92.0) < 0.5
            assert errors == [], "no beat comes before the source is chosen, and none is missed"
        finally:
            beat.stop()


def test_while_another_source_is_chosen_no_beat_is_sent(tmp_path):
    with connected(tmp_path) as (world, bridge):
        beats = []
        bridge.store.on("tempo_beat", lambda args, caller: beats.append(args))
        world.par.Followtempo = True
        world.until(lambda: len(beats) > 1, what="beats")
        bridge.store.set("tempo_source", "tap", DESK)
        world.until(lambda: world.par.Temposource.eval() == "tap", what="the other source")
        beats.clear()
        world.frames(0.3)
        assert beats == []


def test_a_chop_without_a_beat_is_said(tmp_path):
    with connected(tmp_path) as (world, _bridge):
        world.par.Beatchop = "telemetry"
        world.par.Followtempo = True
        world.until(lambda: "telemetry is no Beat CHOP" in world.par.Lasterror.eval())
        assert not world.par.Followtempo.eval()
        world.until(lambda: world.par.Temposource.eval() == "internal")


def test_its_own_picture_becomes_the_input_when_one_is_wired_in(tmp_path):
    with connected(tmp_path) as (world, bridge):
        assert bridge.store.snapshot.value("input") == ""
        picture = world.comp.parent().create(world.td.td.fitTOP, "picture")
        world.comp.inputConnectors[0].connect(picture)
        world.press("Resend")
        world.until(lambda: bridge.store.snapshot.value("input") == "ndi:Tidecast In")
        world.par.Sendname = "Stage Left"
        world.comp.ext.TidecastExt.OnMessage("/tidecast/input", ["ndi:Tidecast In"])  # late, before the change is told
        world.until(lambda: bridge.store.snapshot.value("input") == "ndi:Stage Left")
        world.frames(0.5)
        assert world.par.Input.eval() == "", "the echo of the own name must not fill the field"
        world.par.Transport = "spout"
        world.until(lambda: bridge.store.snapshot.value("input") == "spout:Stage Left")
        assert world.index == 2
        assert world.comp.op("spout_out").par.active.eval() and not world.comp.op("ndi_out").par.active.eval()
        world.par.Bypass = True
        assert world.index == 0


def test_the_ndi_source_is_found_by_the_end_of_its_name(world):
    world.td.ndi(["STAGE-PC (Resolume)", "OTHER (Tidecast 2)", "GPU-PC (Tidecast)"])
    world.td.frame()
    assert world.par.Source.eval() == "GPU-PC (Tidecast)"
    assert world.comp.op("ndi_in").par.name.eval() == "GPU-PC (Tidecast)"


def test_switching_off_ends_all_traffic(tmp_path):
    with connected(tmp_path) as (world, bridge):
        world.par.Active = False
        world.frames(0.1)
        assert not world.online()
        world.par.Strength = 0.01
        world.frames(0.3)
        assert bridge.store.snapshot.value("strength") == pytest.approx(0.6)
        world.par.Active = True
        world.until(lambda: bridge.store.snapshot.value("strength") == pytest.approx(0.01))


def test_the_selftest_finds_what_is_missing_and_writes_a_report(world):
    world.press("Selftest")
    assert "no fault" in world.par.Selftestresult.eval()
    report = Path(world.td.project.folder, "tidecast-selftest.txt")
    assert report.read_text() == world.comp.op("selftest_report").text
    world.comp.op("ndi_out").destroy()
    del world.comp.op("osc_in").pars["maxlines"]
    world.comp.op("fit").pars["outputresolution"].menuNames = ["useinput"]
    world.press("Selftest")
    text = report.read_text()
    assert "operator ndi_out is missing" in text
    assert "osc_in has no parameter maxlines" in text
    assert "fit.outputresolution has no choice custom" in text
    assert "3 faults" in world.par.Selftestresult.eval()


def test_the_log_is_bounded(world):
    world.td.frame()
    ext = world.comp.ext.TidecastExt
    for number in range(700):
        ext.Log(f"line {number}")
    assert world.comp.op("log").numRows == 500 and world.log()[-1] == "line 699"


CHILD = """
import os, socket, sys, time
own = ("PYTHONUNBUFFERED", "PYTHONUTF8")
leaked = [k for k in os.environ if k.upper().startswith(("PYTHON", "VIRTUAL_ENV")) and k not in own]
print("leaked:", leaked, flush=True)
print("arguments:", sys.argv[1:], flush=True)
print("ünïcode", flush=True)
import subprocess
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("grandchild:", grandchild.pid, flush=True)
time.sleep(60)
"""


def program(folder: Path, text: str) -> str:
    """A program that runs this Python text: a script on POSIX, which Windows would not run, and a batch file there."""
    script = folder / "tidecast"
    script.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    script.chmod(0o755)
    if sys.platform != "win32":
        return str(script)
    batch = folder / "tidecast.cmd"
    batch.write_text(f'@"{sys.executable}" "%~dp0tidecast"\n')
    return str(batch)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_start_cleans_the_environment_and_stop_ends_the_whole_tree(world, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME_TD", "C:/Program Files/Derivative")
    monkeypatch.setenv("PythonPath", "/somewhere")
    world.par.Executable = program(tmp_path, CHILD)
    world.par.Arguments = 'run --config "my show"'
    world.press("Start")
    world.until(lambda: any(line.startswith("grandchild:") for line in world.log()))
    assert "leaked: []" in world.log() and "ünïcode" in world.log()
    arguments = next(line for line in world.log() if line.startswith("arguments:"))
    for word in ("'my show'", "'--output', 'ndi:Tidecast'", f"'--osc-port', '{world.par.Port.eval()}'"):
        assert word in arguments
    assert "--input" not in arguments
    pid = int(next(line for line in world.log() if line.startswith("grandchild:")).split()[1])
    assert world.par.Process.eval().startswith("running")
    world.press("Start")
    assert world.log()[-1] == "Tidecast is already starting"
    world.comp.op("engine_process").module.GRACE = 1.0
    world.press("Stop")
    assert world.par.Process.eval() == "stopping"
    world.until(lambda: world.par.Process.eval() == "stopped", seconds=60, what="the end of the process")
    world.until(lambda: not alive(pid), what="the end of the grandchild")
    assert any("its processes are killed" in line for line in world.log())


def test_a_program_that_is_not_there_is_reported(world):
    world.par.Executable = "/nowhere/tidecast"
    world.press("Start")
    assert "Choose the program tidecast at Executable" in world.par.Lasterror.eval()
    assert world.par.Process.eval() == "not started"


def test_a_program_that_ends_by_itself_is_reported(world, tmp_path):
    world.par.Executable = program(tmp_path, "print('no such model')\nraise SystemExit(2)\n")
    world.press("Start")
    world.until(lambda: world.par.Process.eval() == "ended with code 2, see the log")
    assert "no such model" in world.log()


def test_start_uses_a_tidecast_that_already_answers(tmp_path):
    with connected(tmp_path) as (world, _bridge):
        world.press("Start")
        assert "using it" in world.log()[-1]


def test_the_project_can_start_it_and_leaving_ends_it(world, tmp_path):
    world.par.Executable = program(tmp_path, "import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    world.par.Autostart = True
    world.td.call("onStart")
    world.until(lambda: "up" in world.log())
    engine = world.comp.op("engine_process").module.RUNNING[world.comp.id]
    world.comp.initialise()
    assert world.comp.op("engine_process").module.RUNNING[world.comp.id] is engine, "lost by a new extension"
    world.td.call("onExit")
    assert not engine.running


def test_read_only_parameters_are_never_sent(world):
    manifest = json.loads(world.comp.op("manifest").text)
    sent = {row["par"] for row in manifest["controls"]}
    table = generate.load_table()
    rows = {p.name: p for p in network.component(table, table["version"]).parameters}
    assert all(not rows[name].read_only and rows[name].style is not Style.PULSE for name in sent)
