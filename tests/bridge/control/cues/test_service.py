"""The cue list of a running bridge: over real UDP, its file, its place after a restart, and what is captured."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.control.cues import cue_file, keeper
from bridge.control.cues.service import Cues
from bridge.control.origin import Origin, Trust
from bridge.control.osc.client import OscClient
from bridge.control.osc.server import OscServer
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.control.stored.session import Session
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.controls import KEPT
from bridge.control.tempo.service import TempoService
from bridge.table import TABLE
from engine.control import PREFIX
from tests.fakes.ableton_link import Library

HAND = Origin("web:1", Trust.MACHINE)


def eventually(condition: Callable[[], Any], seconds: float = 10.0, say: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, say() or "did not happen in time"
        time.sleep(0.005)


class Running:
    """A Tidecast without engine, video and page."""

    def __init__(self, folder: Path, expected: bool = False) -> None:
        self.path = folder / "cues.toml"
        self.errors: list[tuple[str, str]] = []
        self.written: list[tuple[str, Any]] = []
        self.store, self.telemetry = ControlStore(TABLE), Telemetry(TABLE)
        self.telemetry.listen_errors(lambda *error: self.errors.append(error))
        self.session = Session(folder / "session.json", self.telemetry.error).start()
        self.session.keep(self.store, KEPT)
        self.beat = TempoService(self.store, self.telemetry, library=Library).start()
        report, later = self.telemetry.error, self.beat.changes.later
        self.kept = Snapshots(self.store, folder / "snapshots.json", report, later=later).start()
        self.cues = Cues(self.store, self.telemetry, self.path, self.kept, self.beat, self.session, expected).start()
        self.store.listen(lambda name, value, origin: origin.name == "cue" and self.written.append((name, value)))

    def stop(self) -> None:
        for part in (self.cues, self.kept, self.beat, self.session):
            part.stop()

    def say(self, address: str, *args: Any) -> list[Any]:
        """Send a message; returns the errors that are answered."""
        answers: list[Any] = []
        self.store.handle(PREFIX + address, args, HAND, lambda topic, values: answers.append(values))
        return answers

    def reading(self, name: str) -> Any:
        return self.telemetry.snapshot().get(name)

    def names(self) -> list[str]:
        return [cue.name for cue in self.cues.cues.cue]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    monkeypatch.setattr(keeper, "LOOK_S", 0.05)
    made: list[Running] = []

    def run(**options: Any) -> Running:
        made.append(Running(tmp_path, **options))
        return made[-1]

    yield run
    for one in made:
        one.stop()


THREE = """
[[cue]]
name = "One"
set = {strength = 0.1}
wait = "1 beat"
[[cue]]
name = "Two"
set = {strength = 0.2}
glide = "1 beat"
follow = true
[[cue]]
name = "Three"
prompt = "ink"
"""


def test_over_udp_a_list_plays_in_the_tempo_and_tells_where_it_is(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "cues.toml").write_text(THREE)
    running = start()
    server = OscServer(running.store, running.telemetry, host="127.0.0.1", port=0).start()
    try:
        with OscClient(*server.address) as client:
            client.send("/tidecast/tempo/bpm", [300.0])
            eventually(lambda: running.reading("cue_state") == "go" and running.reading("tempo") == 300.0)
            assert (running.reading("cue_next"), running.reading("cue_count")) == ("One", 3)
            client.send("/tidecast/cue/go")
            eventually(lambda: running.reading("cue") == "Three", say=lambda: str(running.telemetry.snapshot()))
            assert running.store.snapshot.value("prompt_1") == "ink"
            values = [value for name, value in running.written if name == "strength"]
            assert values[0] == 0.1 and values[-1] == 0.2 and values == sorted(values)
            eventually(lambda: running.reading("cue_state") == "end")
            client.send("/tidecast/cue/jump", [2])
            eventually(lambda: running.store.snapshot.value("strength") == 0.2 and running.reading("cue_number") == 3)
            client.send("/tidecast/cue/jump", ["One"])
            client.send("/tidecast/cue/stop")
            eventually(lambda: running.reading("cue") == "One" and running.reading("cue_state") == "go")
    finally:
        server.stop()


def test_after_a_restart_it_stands_at_its_place_and_sets_nothing(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "cues.toml").write_text(THREE)
    before = start()
    for address, value in (("bpm", 93.0), ("quantum", 3), ("source", "tap")):
        assert before.say(f"/tempo/{address}", value) == []
    before.say("/snap", "2-bars")
    before.say("/snap", "off")
    before.say("/cue/jump", 2)
    before.say("/cue/stop")
    before.say("/snap", "2-bars")
    eventually(lambda: before.reading("cue") == "Two")
    before.stop()
    again = start()
    eventually(lambda: again.reading("cue") == "Two" and again.reading("cue_state") == "go")
    assert again.written == [] and again.store.snapshot.value("strength") == 0.6
    found = {name: again.store.snapshot.value(name) for name in ("tempo_bpm", "tempo_quantum", "snap")}
    assert found == {"tempo_bpm": 93.0, "tempo_quantum": 3, "snap": "2-bars"}
    assert (again.beat.tempo.shown_bpm, again.beat.tempo.quantum) == (93.0, 3)
    again.say("/snap", "off")
    again.say("/cue/go")
    assert again.store.snapshot.value("prompt_1") == "ink"
    assert again.errors == []


def test_a_list_is_made_and_changed_live_and_written(start: Callable[..., Running]) -> None:
    running = start()
    assert running.say("/cue/go")[0][1].startswith("The cue list is empty.")
    running.store.set("strength", 0.3)
    assert running.say("/cue/add", "Calm") == []
    running.store.set("strength", 0.9)
    running.say("/cue/add", "Wild")
    running.say("/cue/move", 2, 1)
    running.say("/cue/add")
    running.say("/cue/name", 3, "End")
    running.say("/cue/move", 1, 2)
    running.say("/cue/wait", 1, "2 bars")
    running.say("/cue/glide", 1, "1.5 s")
    running.say("/cue/loop", 1)
    assert running.names() == ["Calm", "Wild", "End"]
    running.say("/cue/remove", 3)
    running.say("/cue/undo")
    assert running.names() == ["Calm", "Wild", "End"]
    for address, args, part in (
        ("/cue/remove", (9,), "There is no cue 9"),
        ("/cue/name", (1, "Wild"), "another cue of this name"),
        ("/cue/wait", (1, "soon"), "is not a length"),
        ("/cue/jump", (), "One name or number"),
        ("/cue/jump", ("x" * 300,), "There is no cue"),
        ("/cue/add", ("a" * 41,), "not a name"),
    ):
        ((topic, reason),) = running.say(address, *args)
        assert topic == PREFIX + address and part in reason and len(reason) < 300
    running.store.set("strength", 0.0)
    running.say("/cue/jump", "Calm")
    eventually(lambda: running.store.snapshot.value("strength") == 0.3)
    running.stop()
    again = start()
    assert again.names() == ["Calm", "Wild", "End"] and again.cues.cues.loop
    assert str(again.cues.cues.cue[0].wait) == "2 bars" and again.errors == running.errors


def test_a_file_that_is_changed_outside_is_read_again_when_it_is_valid(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "cues.toml").write_text(THREE)
    running = start()
    running.say("/cue/jump", 2)
    running.say("/cue/stop")
    running.path.write_text(THREE.replace("strength = 0.2", "strenght = 0.2"))
    eventually(lambda: running.errors)
    assert running.errors == [("cue", running.errors[0][1])]
    said = running.errors[0][1]
    assert str(running.path) in said and "cue 2 (Two): set: there is no control 'strenght'" in said
    assert running.names() == ["One", "Two", "Three"], "the old list stays"
    running.path.write_text('[[cue]]\nname = "Zero"\nset = {mix = 0.5}\n' + THREE)
    eventually(lambda: running.names() == ["Zero", "One", "Two", "Three"])
    eventually(lambda: (running.reading("cue_number"), running.reading("cue_next_number")) == (3, 4))
    running.path.write_text("[[cue]")
    eventually(lambda: len(running.errors) == 2)
    running.say("/cue/add", "New")
    eventually(lambda: len(running.errors) == 3)
    assert "set aside as cues.damaged-1.toml" in running.errors[2][1]
    eventually(lambda: running.path.exists() and "New" in running.path.read_text())
    assert (tmp_path / "cues.damaged-1.toml").read_text() == "[[cue]"


def test_a_list_that_cannot_be_written_is_said_and_plays_on(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    running = start(expected=True)
    assert f"There is no file {running.path}" in running.errors[0][1]
    monkeypatch.setattr(cue_file, "write_atomically", full)
    answers: list[Any] = []
    running.store.handle(PREFIX + "/cue/add", ["A"], HAND, lambda topic, values: answers.append(values))
    eventually(lambda: answers)
    assert "No space left" in answers[0][1] and "The cue list is lost when Tidecast ends" in answers[0][1]
    running.say("/cue/go")
    eventually(lambda: running.reading("cue") == "A")


def test_what_is_played_becomes_cues_that_play_it_again(start: Callable[..., Running]) -> None:
    running = start()
    running.say("/tempo/bpm", 300.0)
    running.say("/strength", 0.5)
    running.say("/snapshot/save", 4)
    running.say("/strength", 0.6)
    assert running.say("/cue/capture", 1) == []
    time.sleep(0.1)
    running.say("/snap", "beat")
    running.say("/snapshot/recall", 4)
    running.say("/prompt/1", "fire")  # both land on the beat
    eventually(lambda: running.store.snapshot.value("prompt_1") == "fire")
    running.say("/snap", "off")
    time.sleep(0.1)
    running.say("/mix", 0.25)
    running.say("/snapshot/recall", 7)  # there is none
    time.sleep(0.1)
    running.say("/prompt/1", "ink")
    running.say("/cue/capture", 0)
    first, recalled, mix, ink = running.cues.cues.cue
    assert first.name == "Take 1" and "beat" in str(first.wait)
    assert recalled.snapshot == 4 and dict(recalled.values) == {"prompt_1": "fire"}
    assert dict(mix.values) == {"mix": 0.25} and dict(ink.values) == {"prompt_1": "ink"}
    assert (mix.snapshot, ink.wait) == (None, None)
    running.store.set_many({"strength": 0.0, "mix": 0.0, "prompt_1": ""})
    running.say("/cue/jump", "Take 1")
    assert running.store.snapshot.value("strength") == 0.6
    eventually(lambda: running.store.snapshot.value("prompt_1") == "ink")
    assert (running.store.snapshot.value("strength"), running.store.snapshot.value("mix")) == (0.5, 0.25)
    running.say("/cue/capture", 1)
    running.stop()
    assert "Take 2" in running.path.read_text(), "what is captured is not lost when the program ends"


def test_a_capture_ends_when_the_list_is_full(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "cues.toml").write_text("[[cue]]\nsnapshot = 1\n" * 254)
    running = start()
    running.say("/cue/capture", 1)
    running.say("/steps", 3)
    eventually(lambda: len(running.names()) == 256 and running.errors)
    assert not running.store.snapshot.value("cue_capture") and "at most" in running.errors[-1][1]
    running.say("/cue/capture", 1)
    assert not running.store.snapshot.value("cue_capture") and "nothing is captured" in running.errors[-1][1]
