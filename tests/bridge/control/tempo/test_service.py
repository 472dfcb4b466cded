"""The beat of a running bridge: controls, commands and telemetry, over real UDP and through real MIDI ports."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import mido
import pytest

from bridge.control.midi.backend import open_backend
from bridge.control.midi.input import MidiInput
from bridge.control.origin import Origin, Trust
from bridge.control.osc.client import OscClient
from bridge.control.osc.server import OscServer
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.service import TempoService
from bridge.table import TABLE
from engine.control import PREFIX
from tests.fakes import midi_loopback as cables
from tests.fakes.ableton_link import Library

PAGE = Origin("web:1", Trust.MACHINE)
CLOCK, START, STOP = mido.Message("clock"), mido.Message("start"), mido.Message("stop")


class Stage:
    def __init__(self, latency_ms: float = 40.0) -> None:
        self.store, self.telemetry = ControlStore(TABLE), Telemetry(TABLE)
        self.errors: list[tuple[str, str]] = []
        self.written: list[tuple[str, Any, str]] = []
        self.telemetry.listen_errors(lambda *error: self.errors.append(error))
        self.store.listen(lambda name, value, origin: self.written.append((name, value, origin.name)))
        self.library = Library()
        self.beat = TempoService(self.store, self.telemetry, lambda name: latency_ms, lambda: self.library).start()

    def say(self, address: str, *args: Any) -> list[Any]:
        """Send a message; returns the errors that are answered."""
        answers: list[Any] = []
        self.store.handle(PREFIX + address, args, PAGE, lambda topic, values: answers.append(values))
        return answers

    def reading(self, name: str) -> Any:
        return self.telemetry.snapshot().get(name)

    def until(self, what: str, value: Any, seconds: float = 10.0) -> None:
        eventually(lambda: self.reading(what) == value, seconds, lambda: f"{what} is {self.reading(what)!r}")


def eventually(condition, seconds=10.0, say=lambda: "did not happen in time"):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, say()
        time.sleep(0.005)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.beat.stop()


def test_the_telemetry_tells_the_beat(stage: Stage) -> None:
    stage.until("tempo", 120.0)
    assert (stage.reading("tempo_source"), stage.reading("tempo_state")) == ("internal", "running")
    before = stage.reading("beat")
    eventually(lambda: stage.reading("beat") >= before + 1.0)
    assert 0.0 <= stage.reading("bar") < 1.0
    assert stage.reading("snap_lookahead") == 40.0


def test_its_rate_is_bounded() -> None:
    class Counting(Telemetry):
        count = 0

        def update(self, **readings: Any) -> None:
            Counting.count += 1
            super().update(**readings)

    store, telemetry = ControlStore(TABLE), Counting(TABLE)
    beat = TempoService(store, telemetry, library=Library).start()
    try:
        began = time.monotonic()
        while time.monotonic() < began + 1.0:
            store.handle(PREFIX + "/tempo/beat", [1.0], PAGE)
            store.handle(PREFIX + "/tempo/nudge", [0.1], PAGE)
        assert Counting.count <= 21 * (time.monotonic() - began) + 2
    finally:
        beat.stop()


def test_tempo_taps_and_commands(stage: Stage) -> None:
    assert stage.say("/tempo/bpm", 128.5) == []
    stage.until("tempo", 128.5)
    stage.say("/tempo/double")
    stage.until("tempo", 257.0)
    eventually(lambda: stage.store.snapshot.value("tempo_bpm") == 257.0)
    stage.say("/tempo/halve")
    stage.say("/tempo/round")
    stage.until("tempo", 128.0)
    for _ in range(3):
        stage.say("/tempo/tap")
        time.sleep(0.2)
    stage.until("tempo_source", "tap")
    assert stage.store.snapshot.value("tempo_source") == "tap"
    assert 60.0 < stage.reading("tempo") <= 305.0
    stage.say("/tempo/bpm", 100.0)
    stage.until("tempo_source", "internal")
    stage.until("tempo", 100.0)
    stage.say("/tempo/quantum", 3)
    stage.say("/tempo/resync")
    assert stage.beat.tempo.quantum == 3
    assert stage.beat.tempo.bar_at(time.monotonic_ns()) < 0.2
    before = stage.beat.tempo.line
    stage.say("/tempo/later")
    after = stage.beat.tempo.line
    assert after.beat_at(before.ns) == pytest.approx(before.beat - 0.010 * 100 / 60, abs=1e-6)


@pytest.mark.parametrize(
    ("address", "value", "part"),
    [
        ("/tempo/bpm", float("nan"), "not a number"),
        ("/tempo/bpm", "fast", "not a number"),
        ("/tempo/beat", float("inf"), "not a number"),
        ("/tempo/phase", 1.5, "0 to 1"),
        ("/tempo/nudge", 5000.0, "too far"),
        ("/tempo/source", "moon", "one of internal"),
        ("/snap", "never", "one of off"),
    ],
)
def test_what_makes_no_sense_is_answered_and_changes_nothing(stage: Stage, address: str, value: Any, part: str) -> None:
    before = stage.beat.tempo
    (error,) = stage.say(address, value)
    assert error[0] == PREFIX + address and part in error[1]
    assert stage.beat.tempo == before


def test_numbers_out_of_range_are_clamped(stage: Stage) -> None:
    stage.say("/tempo/bpm", 5.0)
    stage.until("tempo", 20.0)
    stage.say("/tempo/bpm", 1e9)
    stage.until("tempo", 999.0)


def test_a_change_waits_for_the_beat_and_is_shown(stage: Stage) -> None:
    stage.say("/snap", "bar")
    stage.say("/tempo/bpm", 240.0)
    stage.say("/tempo/resync")
    stage.say("/prompt/1", "fire")
    stage.until("snap_pending", "prompt_1")
    eventually(lambda: stage.store.snapshot.value("prompt_1") == "fire")
    at = time.monotonic_ns() + 40_000_000
    tempo = stage.beat.tempo
    place = (tempo.bar_at(at) + 0.5) % 1.0 - 0.5
    assert -0.02 < place < 0.3, "when it is seen, 40 ms later, a bar begins"
    stage.until("snap_pending", "")
    assert ("prompt_1", "fire", "web:1") in stage.written


def test_what_waits_can_be_taken_back(stage: Stage) -> None:
    stage.say("/snap", "8-bars")
    stage.say("/tempo/bpm", 20.0)
    stage.say("/prompt/1", "fire")
    stage.until("snap_pending", "prompt_1")
    stage.say("/snap/cancel")
    stage.until("snap_pending", "")
    assert stage.store.snapshot.value("prompt_1") == ""


def test_over_udp_all_of_it_is_there(stage: Stage) -> None:
    server = OscServer(stage.store, stage.telemetry, host="127.0.0.1", port=0)
    with server, OscClient(*server.address) as client:
        client.send(PREFIX + "/tempo/source", ["osc"])
        eventually(lambda: stage.beat.tempo.source == "osc")
        for beat in range(64, 69):
            client.send(PREFIX + "/tempo/beat", [float(beat)])
            time.sleep(0.3)
        stage.until("tempo_state", "running")
        assert stage.beat.tempo.beat_at(time.monotonic_ns()) == pytest.approx(69.0, abs=1.5)
        stage.until("tempo_state", "lost")
    assert any("The beat over OSC is silent; the beat goes on" in text for _, text in stage.errors)


def test_beats_that_nobody_follows_are_said_once(stage: Stage) -> None:
    for number in range(500):
        assert stage.say("/tempo/beat", float(number)) == []
    assert [text for _, text in stage.errors] == [
        "Beats come by OSC, and the source of the beat is internal: they are ignored. "
        "Set /tidecast/tempo/source to osc to follow them."
    ]


# MIDI, through ports of this process


@pytest.fixture
def ports(stage: Stage, tmp_path) -> Iterator[MidiInput]:
    backend = open_backend("tests.fakes.midi_loopback")
    midi = MidiInput(stage.store, tmp_path / "midi.toml", pytest.fail, backend, look_s=0.05, clock=stage.beat).start()
    yield midi
    midi.stop()


@pytest.fixture
def mixer() -> Iterator[cables.Device]:
    yield cables.plug("DJM Mixer 20:0")
    cables.unplug("DJM Mixer 20:0")


class Player(threading.Thread):
    """Sends clocks in real time until it is told to stop."""

    def __init__(self, device: cables.Device, bpm: float) -> None:
        super().__init__(daemon=True)
        self.device, self.period_s = device, 60.0 / bpm / 24
        self.halted, self.sent = threading.Event(), 0

    def run(self) -> None:
        due = time.monotonic()
        while not self.halted.is_set():
            due += self.period_s
            time.sleep(max(0.0, due - time.monotonic()))
            self.device.send(CLOCK)
            self.sent += 1

    def halt(self) -> None:
        self.halted.set()
        self.join()


def test_midi_clock_from_a_port_is_followed_and_missed(stage: Stage, ports: MidiInput, mixer: cables.Device) -> None:
    eventually(lambda: ports.ports == ("DJM Mixer 20:0",))
    stage.say("/tempo/source", "midi")
    stage.until("tempo_state", "waiting")
    mixer.send(START)
    player = Player(mixer, 150.0)
    player.start()
    stage.until("tempo_state", "running")
    eventually(lambda: abs((stage.reading("tempo") or 0.0) - 150.0) < 3.0)
    eventually(lambda: abs(stage.store.snapshot.value("tempo_bpm") - 150.0) < 3.0)
    (refused,) = stage.say("/tempo/bpm", 90.0)
    assert "follows MIDI clock" in refused[1]
    eventually(lambda: player.sent > 100)
    player.halt()
    assert stage.beat.tempo.beat_at(stage.beat.tempo.line.ns) == pytest.approx((player.sent - 1) / 24, abs=0.1)
    mixer.send(STOP)
    stage.until("tempo_state", "stopped")
    assert stage.beat.tempo.beat_at(time.monotonic_ns()) == pytest.approx(player.sent / 24), "counted, so exact"
    mixer.send(mido.Message("songpos", pos=16))
    assert stage.beat.tempo.beat_at(time.monotonic_ns()) == 4.0
    mixer.send(mido.Message("continue"))
    mixer.send(CLOCK)
    assert stage.beat.tempo.beat_at(stage.beat.tempo.line.ns) == pytest.approx(4.0, abs=1e-6)
    stage.until("tempo_state", "lost")
    assert any("The MIDI clock is silent" in text for _, text in stage.errors)


def test_the_clock_moves_no_control_and_a_knob_still_does(stage: Stage, ports: MidiInput, mixer: cables.Device) -> None:
    eventually(lambda: ports.ports)
    ports.learn("strength")
    for _ in range(50):
        mixer.send(CLOCK)
    mixer.send(mido.Message("songpos", pos=100))
    assert ports.learning, "the clock is not taken for a knob"
    for value in (0, 64, 127):
        mixer.send(mido.Message("control_change", control=9, value=value))
    eventually(lambda: not ports.learning)


def test_a_port_that_is_no_controller_is_opened_for_its_clock_by_name(stage: Stage, ports: MidiInput) -> None:
    through = cables.plug("Midi Through Port-0 14:0")
    try:
        stage.say("/tempo/source", "midi")
        time.sleep(0.2)
        assert ports.ports == ()
        stage.say("/tempo/midi/port", "midi through")
        eventually(lambda: ports.ports == ("Midi Through Port-0 14:0",))
        through.send(START)
        through.send(CLOCK)
        assert stage.beat.tempo.beat_at(stage.beat.tempo.line.ns) == 0.0
        before = stage.store.snapshot
        through.send(mido.Message("control_change", control=1, value=5))
        assert stage.store.snapshot is before, "its knobs move nothing"
        stage.say("/tempo/midi/port", "")
        eventually(lambda: ports.ports == ())
    finally:
        cables.unplug("Midi Through Port-0 14:0")


def test_another_port_takes_over_only_when_the_first_is_silent(
    stage: Stage, ports: MidiInput, mixer: cables.Device
) -> None:
    drums = cables.plug("Drum machine")
    try:
        eventually(lambda: len(ports.ports) == 2)
        stage.say("/tempo/source", "midi")
        mixer.send(START)
        mixer.send(CLOCK)
        drums.send(STOP)
        assert stage.beat.tempo.moving
        stage.say("/tempo/midi/port", "drum")
        drums.send(STOP)
        assert not stage.beat.tempo.moving
    finally:
        cables.unplug("Drum machine")


# Ableton Link, with a stand-in for its library


def test_link_is_joined_by_choosing_it_and_left_again(stage: Stage) -> None:
    other = stage.library.Link(126.0)
    other.enabled = True
    stage.library.session.set_by.clear()
    stage.say("/tempo/bpm", 99.0)
    stage.say("/tempo/source", "link")
    stage.until("tempo_peers", 1)
    stage.until("tempo", 126.0)
    assert stage.library.session.set_by == [], "joining sets no tempo"
    eventually(lambda: stage.store.snapshot.value("tempo_bpm") == 126.0)
    time.sleep(0.6)
    assert stage.library.session.set_by == [], "nor does the control that follows"
    stage.say("/tempo/bpm", 130.0)
    eventually(lambda: stage.library.session.set_by == [130.0])
    stage.until("tempo", 130.0)
    stage.say("/tempo/source", "internal")
    eventually(lambda: stage.library.session.peers == [other])
    stage.until("tempo", 130.0)
    assert stage.library.session.bpm == 130.0


def test_the_last_peer_that_leaves_is_said(stage: Stage) -> None:
    other = stage.library.Link(126.0)
    other.enabled = True
    stage.say("/tempo/source", "link")
    stage.until("tempo_peers", 1)
    other.enabled = False
    stage.until("tempo_state", "lost")
    assert any("Ableton Link is silent; the beat goes on at 126" in text for _, text in stage.errors)


def test_without_the_library_the_beat_goes_on_and_it_is_said() -> None:
    from bridge.control.tempo.ableton_link import LinkError

    def none() -> Any:
        raise LinkError("Ableton Link is not installed (link).", "Run: pip install 'tidecast[link]'.")

    store, telemetry, errors = ControlStore(TABLE), Telemetry(TABLE), []
    telemetry.listen_errors(lambda *error: errors.append(error))
    beat = TempoService(store, telemetry, library=none).start()
    try:
        assert errors == [], "only who asks for it is told"
        store.handle(PREFIX + "/tempo/source", ["link"], PAGE)
        eventually(lambda: errors)
        assert "pip install 'tidecast[link]'" in errors[0][1]
        eventually(lambda: telemetry.snapshot().get("tempo_state") == "waiting")
        before = beat.tempo.beat_at(time.monotonic_ns())
        eventually(lambda: beat.tempo.beat_at(time.monotonic_ns()) > before + 0.5)
        assert len(errors) == 1
        store.handle(PREFIX + "/tempo/bpm", [77.0], PAGE)
        eventually(lambda: telemetry.snapshot()["tempo"] == 77.0)
        assert store.snapshot.value("tempo_bpm") == 77.0
    finally:
        beat.stop()


def test_the_thread_survives_whatever_happens_and_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(ns: int) -> None:
        raise RuntimeError("a defect of the clock")

    monkeypatch.setattr(stage.beat.clock, "check", fail)
    eventually(lambda: any("a defect of the clock" in text for _, text in stage.errors))
    monkeypatch.undo()
    stage.say("/snap", "beat")
    stage.say("/prompt/1", "fire")
    eventually(lambda: stage.store.snapshot.value("prompt_1") == "fire")


def test_it_starts_and_stops_as_often_as_it_is_asked(stage: Stage) -> None:
    stage.beat.start()
    stage.beat.stop()
    stage.beat.stop()
    stage.say("/snap", "8-bars")
    stage.say("/prompt/1", "fire")
    assert stage.store.snapshot.value("prompt_1") == "fire", "nobody makes it wait"
    stage.beat.start()
    stage.say("/prompt/1", "ink")
    assert stage.store.snapshot.value("prompt_1") == "fire"
