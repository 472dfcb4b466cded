"""MIDI that is switched on while Tidecast runs, over mido ports that need no hardware."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mido import Message

from bridge.control.midi import switch
from bridge.control.midi.backend import MidiError, open_backend
from bridge.control.midi.switch import MidiSwitch
from bridge.control.store import ControlStore
from bridge.table import TABLE
from tests.fakes import midi_loopback as cables

ON, LEARN = "/tidecast/midi/on", "/tidecast/midi/learn"


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def off(tmp_path: Path, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[MidiSwitch]:
    monkeypatch.setattr(switch, "open_backend", lambda: open_backend("tests.fakes.midi_loopback"))
    made = MidiSwitch(ControlStore(TABLE), tmp_path / "midi.toml", lambda *text: told.append(text))
    yield made.start(False)
    made.stop()
    for device in [device["name"] for device in cables.get_devices()]:
        cables.unplug(device)


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def said(store: ControlStore, address: str, *args: Any) -> list[tuple[str, Any]]:
    answers = list[tuple[str, Any]]()
    store.handle(address, args, reply=lambda *answer: answers.append(answer))
    return answers


def test_who_wants_to_learn_a_knob_while_midi_is_off_is_told_how_to_switch_it_on(off: MidiSwitch) -> None:
    ((address, (where, reason)),) = said(off._store, LEARN, "/tidecast/mix")
    assert (address, where) == ("/error", LEARN)
    assert reason == "MIDI is off. Send /tidecast/midi/on, or start with --midi."
    assert off.input is None


def test_a_knob_is_learned_after_midi_was_switched_on(off: MidiSwitch) -> None:
    store = off._store
    assert said(store, ON) == said(store, ON) == []  # twice is once
    until(lambda: off.input is not None, "it is on")
    device = cables.plug("nanoKONTROL2")
    until(lambda: off.input is not None and off.input.ports, "the controller")
    assert said(store, LEARN, "/tidecast/mix") == []
    for value in (0, 60, 127, 0):
        device.send(Message("control_change", channel=0, control=9, value=value))
    until(lambda: off.input is not None and "/tidecast/mix" in off.input.knobs, "the knob")
    off.stop()
    assert off.input is None
    assert "not running" in said(store, LEARN, "/tidecast/mix")[0][1][1]


def test_a_system_without_midi_says_so_and_can_be_asked_again(
    off: MidiSwitch, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Any:
        raise MidiError("This system has no MIDI.")

    with monkeypatch.context() as without:
        without.setattr(switch, "open_backend", none)
        said(off._store, ON)
        until(lambda: told, "the reason")
    assert told == [("midi", "This system has no MIDI.")] and off.input is None
    until(lambda: said(off._store, ON) or off.input is not None, "it is on")
