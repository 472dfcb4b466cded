"""`tidecast osc` and `tidecast midi` against a real server, and the generated documentation."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mido import Message
from typer.testing import CliRunner

from bridge.cli import control
from bridge.cli.control import argument, midi_app, osc_app
from bridge.control.document import BEGIN, END, markdown
from bridge.control.midi.backend import open_backend
from bridge.control.midi.bindings import load
from bridge.control.midi.input import MidiInput
from bridge.control.osc.server import OscServer
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from engine.control import PREFIX
from tests.fakes import midi_loopback as cables

DOCUMENT = Path(__file__).parents[3] / "docs" / "controls.md"
runner = CliRunner(env={"COLUMNS": "200"})


@pytest.fixture
def stage():
    store, telemetry = ControlStore(TABLE), Telemetry(TABLE)
    with OscServer(store, telemetry, host="127.0.0.1", port=0, inputs=lambda: ["pattern:bars"]) as server:
        yield store, telemetry, ["--port", str(server.address[1])]


@pytest.fixture
def cable():
    yield cables.plug("test knobs")
    cables.unplug("test knobs")


def test_list_names_everything():
    result = runner.invoke(osc_app, ["list"])
    assert result.exit_code == 0
    assert all(row.address in result.output for row in (*TABLE.controls, *TABLE.commands, *TABLE.readings))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/tidecast/strength", "7"], "/tidecast/strength 1\n"),
        (["steps", "3"], "/tidecast/steps 3\n"),
        (["/mix/midi", "127"], "/tidecast/mix/midi 127\n"),
        (["/seed", "-3"], "/tidecast/seed 0\n"),
        (["prompt/2", "a green sea"], "/tidecast/prompt/2 a green sea\n"),
        (["ping", "5", "x"], "/tidecast/pong 5 x\n"),
        (["inputs"], "/tidecast/inputs pattern:bars\n"),
        (["reset"], "sent /tidecast/reset\n"),
    ],
)
def test_send_shows_the_effective_value_or_the_answer(stage, words, shown):
    _, _, where = stage
    result = runner.invoke(osc_app, ["send", *where, *words])
    assert (result.exit_code, result.output) == (0, shown)


def test_words_that_the_terminal_cannot_write_are_sent_all_the_same(stage):
    store, _, where = stage
    command = [sys.executable, "-m", "bridge", "osc", "send", *where, "prompt/1", "\u65e5\u672c sunset"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stdout) == (0, "/tidecast/prompt/1 ?? sunset\n"), done.stderr
    assert store.snapshot.value("prompt_1") == "\u65e5\u672c sunset"


@pytest.mark.parametrize("words", [["strength", "loud"], ["nowhere", "1"], ["snapshot/save", "1"]])
def test_send_shows_errors_and_exits_1(stage, words):
    _, _, where = stage
    result = runner.invoke(osc_app, ["send", *where, *words])
    assert result.exit_code == 1
    assert f"{PREFIX}/{words[0]}: " in result.output


@pytest.mark.parametrize(
    ("word", "asked"),
    [("strenght", "Did you mean strength?"), ("promt/1", "Did you mean prompt/1"), ("zzz", "See: tidecast osc list")],
)
def test_a_mistyped_address_is_answered_with_the_nearest_one(stage, word, asked):
    _, _, where = stage
    result = runner.invoke(osc_app, ["send", *where, word, "0.5"])
    assert result.exit_code == 1
    assert "There is nothing at this address." in result.output and asked in result.output


def test_nobody_there_is_told_with_the_remedy():
    with OscServer(ControlStore(TABLE), Telemetry(TABLE), host="127.0.0.1", port=0) as server:
        port = str(server.address[1])
    for command in (["send", "reset"], ["watch"]):
        result = runner.invoke(osc_app, [*command, "--port", port])
        assert result.exit_code == 1
        assert "tidecast run" in result.output


def test_watch_shows_changes_readings_and_errors(stage):
    store, telemetry, where = stage

    def play():
        time.sleep(0.5)
        store.set("mix", 0.25)
        telemetry.update(fps_out=24.0)
        telemetry.error("input", "gone")

    thread = threading.Thread(target=play)
    thread.start()
    result = runner.invoke(osc_app, ["watch", *where, "--seconds", "1.5"])
    thread.join()
    assert result.exit_code == 0
    for line in (
        "/tidecast/mix 1\n",
        "/tidecast/mix 0.25\n",
        "/tidecast/status/fps/out 24\n",
        "/tidecast/error input gone\n",
    ):
        assert result.output.count(line) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1", -1),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("a b", "a b"),
        ("", ""),
        ("9" * 30, float("9" * 30)),
    ],
)
def test_words_become_the_arguments_that_are_meant(text, value):
    assert argument(text) == value
    assert type(argument(text)) is type(value)


def turn(device, number):
    """Turn a knob until it is no longer asked for."""
    stop = threading.Event()

    def run():
        while not stop.wait(0.05):
            for value in (0, 127):
                device.send(Message("control_change", control=number, value=value))

    threading.Thread(target=run, daemon=True).start()
    return stop


def test_learn_in_a_running_tidecast(stage, cable, tmp_path):
    store, telemetry, where = stage
    backend = open_backend("tests.fakes.midi_loopback")
    midi = MidiInput(store, tmp_path / "midi.toml", telemetry.error, backend, look_s=0.05).start()
    stop = turn(cable, 33)
    result = runner.invoke(midi_app, ["learn", "strength", *where])
    stop.set()
    midi.stop()
    assert result.output.endswith("test knobs: CC 33, channel 1 moves /tidecast/strength\n")
    assert result.exit_code == 0
    assert any(b.cc == 33 for b in load(tmp_path / "midi.toml", TABLE))


def test_learn_while_nothing_runs_writes_the_file(cable, tmp_path, monkeypatch):
    with OscServer(ControlStore(TABLE), Telemetry(TABLE), host="127.0.0.1", port=0) as server:
        port = str(server.address[1])
    monkeypatch.setattr(control, "open_backend", lambda: open_backend("tests.fakes.midi_loopback"))
    stop = turn(cable, 34)
    result = runner.invoke(midi_app, ["learn", "/mix", "--port", port, "--state-dir", str(tmp_path)])
    stop.set()
    assert result.output.endswith("test knobs: CC 34, channel 1 moves /tidecast/mix\n")
    assert any(b.cc == 34 for b in load(tmp_path / "midi.toml", TABLE))
    result = runner.invoke(midi_app, ["list", "--state-dir", str(tmp_path)])
    assert result.exit_code == 0
    assert "test knobs: CC 34, channel 1" in result.output
    assert "Plugged in: test knobs" in result.output


def test_learn_ends_without_a_knob_and_refuses_what_cannot_be_bound(stage):
    _, _, where = stage
    result = runner.invoke(midi_app, ["learn", "nowhere", *where])
    assert result.exit_code == 1
    assert "osc list" in result.output
    result = runner.invoke(midi_app, ["learn", "strength", *where])
    assert result.exit_code == 1
    assert "not running" in result.output


# The documentation


def test_the_tables_name_everything_with_its_help():
    text = markdown(TABLE)
    for row in (*TABLE.controls, *TABLE.commands, *TABLE.readings):
        assert any(f"`{row.address}`" in line and row.help in line for line in text.splitlines()), row.name


def test_the_document_holds_the_tables_as_they_are_now():
    held_in = DOCUMENT.read_text(encoding="utf-8")
    assert BEGIN in held_in
    held = held_in.partition(BEGIN)[2].partition(END)[0].strip()
    assert held == markdown(TABLE).strip(), "Paste the output of: python -m bridge.table"
