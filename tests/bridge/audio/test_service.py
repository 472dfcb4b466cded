"""The sound of a running bridge: readings, signals, the proposed tempo, who may choose, and sources that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from bridge.audio import listener as listening
from bridge.audio.source import AudioError, AudioSource, Block
from bridge.control.origin import Origin, Trust
from bridge.pipeline.endpoints import endpoint_thread
from tests.bridge.audio.conftest import Room, eventually
from tests.bridge.audio.test_analysis import RATE, tone
from tests.bridge.audio.test_proposal import music

TABLET = Origin("web:2", Trust.NETWORK)
BANDS = ("level", "low", "mid", "high", "onset")


class Played(AudioSource):
    """Gives prepared sound, as fast as it is taken."""

    def __init__(self, sound: np.ndarray, size: int = 4800, then: Callable[[], Block | None] = lambda: None) -> None:
        self._blocks = [sound[at : at + size] for at in range(0, len(sound), size)]
        self._then = then
        self.closed = threading.Event()
        self.title = "a record"

    def open(self) -> None:
        pass

    def read(self, timeout_s: float) -> Block | None:
        if self._blocks:
            return Block(self._blocks.pop(0), RATE, time.monotonic_ns())
        time.sleep(min(timeout_s, 0.01))
        return self._then()

    def close(self) -> None:
        self.closed.set()


def endless(sound: np.ndarray) -> Callable[[], Block]:
    return lambda: Block(sound, RATE, time.monotonic_ns())


def test_off_is_the_default_and_costs_nothing(room: Room) -> None:
    eventually(lambda: room.reading("state") == "off")
    assert room.signals.names() == ()
    eventually(lambda: not any(name.startswith("audio ") for name in room.threads()), "no thread for a source")
    assert [room.reading(name) for name in BANDS] == [0.0] * 5


def test_what_is_heard_becomes_readings_and_signals(room: Room) -> None:
    room.make = lambda uri, playing: Played(tone(80.0, 0.1), then=endless(tone(80.0, 0.1, 0.1)))
    assert room.say("/audio/source", "device:desk") == []
    eventually(lambda: room.reading("state") == "running" and room.reading("low") > 0.9)
    assert room.reading("heard") == "a record" and room.signal("low") > 0.9 and room.reading("high") < 0.2
    assert set(room.signals.names()) == {f"audio/{name}" for name in BANDS}
    room.say("/audio/auto", 0)
    room.say("/audio/gain", 6.0)
    eventually(lambda: abs(room.reading("low") - 0.2) < 0.02, "0.1 and 6 dB")
    room.say("/audio/source", "off")
    eventually(lambda: room.reading("state") == "off")
    assert [room.reading(name) for name in BANDS] == [room.signal(name) for name in BANDS] == [0.0] * 5


def test_without_data_nothing_is_heard(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "QUIET_S", 0.05)
    room.make = lambda uri, playing: Played(tone(80.0, 0.1))
    room.say("/audio/source", "loopback:")
    eventually(lambda: room.signals.names(), "it to be heard")
    eventually(lambda: [room.signal(name) for name in BANDS] == [0.0] * 5, "silence")
    eventually(lambda: [room.reading(name) for name in BANDS] == [0.0] * 5 and room.reading("state") == "waiting")
    assert room.errors == [], "a pause is no fault"


def test_the_heard_tempo_is_proposed_and_only_taken_by_hand(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LOOK_S", 0.0)
    assert "No tempo is heard." in str(room.say("/audio/take"))
    record = Played(music(126.0, 10.0), size=RATE // 4)
    room.make = lambda uri, playing: record
    monkeypatch.setattr(listening, "QUIET_S", 60.0)
    room.say("/audio/source", "device:")
    eventually(lambda: abs((room.reading("bpm") or 0.0) - 126.0) < 0.5)
    assert room.store.snapshot.value("tempo_bpm") == 120.0, "nobody has taken it"
    assert room.say("/audio/take") == []
    assert room.store.snapshot.value("tempo_bpm") == pytest.approx(126.0, abs=0.5)


def test_other_machines_choose_what_programs_send_and_no_device(room: Room) -> None:
    room.make = lambda uri, playing: Played(tone(80.0))
    for refused in ("device:", "loopback:", "device:Line"):
        assert "may not open a sound device" in str(room.say("/audio/source", refused, origin=TABLET))
    assert room.store.snapshot.value("audio_source") == "off"
    assert room.say("/audio/source", "ndi", origin=TABLET) == []
    assert room.say("/audio/source", "off", origin=TABLET) == []


@pytest.mark.parametrize("bad", ["", "mic", "camera:0", "off:x", "device:" + "x" * 300])
def test_what_can_never_be_heard_is_refused_at_once(room: Room, bad: str) -> None:
    assert len(room.say("/audio/source", bad)) == 1
    assert room.store.snapshot.value("audio_source") == "off"


def test_whatever_a_source_raises_is_said_once_and_tried_again(room: Room) -> None:
    tried: list[float] = []

    def make(uri: str, playing: Callable[[], str]) -> AudioSource:
        tried.append(time.monotonic())
        if len(tried) == 1:
            raise AudioError("It is not there.", "Plug it in.")
        if len(tried) < 4:
            raise RuntimeError("a defect")
        return Played(tone(80.0), then=endless(tone(80.0, 0.1, 0.1)))

    room.make = make
    room.say("/audio/source", "device:desk")
    eventually(lambda: room.reading("state") == "running")
    assert room.errors == ["It is not there. Plug it in.", "device:desk has failed: RuntimeError: a defect."]
    assert tried[2] - tried[1] >= 0.1 and tried[3] - tried[2] >= 0.2, "the pause grows"


def test_a_source_that_hangs_is_left_behind_and_another_one_heard(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_thread, "HANG_S", 0.5)
    monkeypatch.setattr("bridge.audio.service.STOP_S", 0.1)
    release = threading.Event()

    class Hanging(Played):
        def open(self) -> None:
            release.wait(240.0)

    room.make = lambda uri, playing: (
        Hanging(tone(80.0)) if "bad" in uri else Played(tone(80.0), then=endless(tone(80.0)))
    )
    room.say("/audio/source", "device:bad")
    eventually(lambda: any("has not answered" in text for text in room.errors))
    room.say("/audio/source", "device:good")
    eventually(lambda: room.reading("state") == "running")
    began = time.monotonic()
    room.audio.stop()
    assert time.monotonic() - began < 60.0
    release.set()


def test_what_another_source_still_hears_does_not_count(room: Room) -> None:
    held = threading.Event()
    loud = tone(80.0, 0.1, 0.1)

    class Slow(Played):
        def read(self, timeout_s: float) -> Block | None:
            block = Block(loud, RATE, time.monotonic_ns())
            if held.is_set():
                time.sleep(0.05)
            return block

    room.make = lambda uri, playing: Slow(loud)
    room.say("/audio/source", "device:")
    eventually(lambda: room.signal("low") > 0.5)
    held.set()
    room.say("/audio/source", "off")
    eventually(lambda: room.reading("state") == "off")
    time.sleep(0.1)
    assert room.signal("low") == 0.0 == room.reading("low")


def test_start_and_stop_leave_nothing_behind(room: Room) -> None:
    record = Played(tone(80.0), then=endless(tone(80.0, 0.1, 0.1)))
    room.make = lambda uri, playing: record
    room.say("/audio/source", "device:")
    eventually(lambda: room.reading("state") == "running")
    room.audio.stop()
    room.audio.stop()
    assert record.closed.is_set()
    eventually(lambda: not room.threads(), "no thread")
    room.audio.start()
    eventually(lambda: room.reading("state") == "running")
