"""A show file holds the cue list: saved, opened, taken back, refused as a whole, and without a running Tidecast."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.control.cues.cue_list import CueList
from bridge.control.cues.service import Cues
from bridge.control.midi.switch import MidiSwitch
from bridge.control.origin import Origin, Trust
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.control.stored.session import Session
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.service import TempoService
from bridge.pipeline.input_policy import InputPolicy
from bridge.show import folder as show_folder
from bridge.show.live import LiveShow
from bridge.show.show_file import Show, ShowError, pack, unpack
from bridge.table import TABLE
from engine.control import PREFIX
from tests.bridge.control.cues.stage import listed
from tests.fakes.ableton_link import Library

HERE = Origin("web:http", Trust.MACHINE)
THERE = Origin("web:http", Trust.NETWORK)
ONE = listed({"name": "Intro", "prompt": "fire", "wait": "4 bars"}, {"name": "End", "snapshot": 3}, loop=True)
OTHER = listed({"name": "Other", "set": {"mix": 0.5}})


class Running:
    """A Tidecast without engine, video and page."""

    def __init__(self, folder: Path) -> None:
        self.store, self.telemetry = ControlStore(TABLE), Telemetry(TABLE)
        self.store.restrict("input", InputPolicy((), lambda: ()))
        report = self.telemetry.error
        self.session = Session(folder / show_folder.SESSION, report).start()
        self.beat = TempoService(self.store, self.telemetry, library=Library).start()
        self.kept = Snapshots(self.store, folder / show_folder.SNAPSHOTS, report).start()
        self.midi = MidiSwitch(self.store, folder / show_folder.BINDINGS, report)
        path = folder / show_folder.CUES
        self.cues = Cues(self.store, self.telemetry, path, self.kept, self.beat, self.session).start()
        self.show = LiveShow(self.store, self.kept, self.midi, report, self.cues)

    def stop(self) -> None:
        for part in (self.cues, self.kept, self.beat, self.session):
            part.stop()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    here = Running(tmp_path)
    yield here
    here.stop()


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def test_a_list_goes_into_the_file_and_comes_back(running: Running) -> None:
    running.cues.replace(ONE)
    data = running.show.save()
    running.cues.replace(OTHER)
    show = running.show.open(data, HERE)
    assert show.words.endswith(", 2 cues") and running.cues.cues == ONE
    assert running.store.handle(PREFIX + "/snapshot/undo", ())
    assert running.cues.cues == OTHER, "taken back with the rest of the show"
    running.show.open(data, HERE)
    running.store.handle(PREFIX + "/cue/name", (1, "Mine"))
    running.store.handle(PREFIX + "/snapshot/undo", ())
    assert running.cues.cues.cue[0].name == "Mine", "what was changed since stays"


def test_a_file_without_a_list_leaves_the_one_that_there_is(running: Running) -> None:
    running.cues.replace(ONE)
    running.show.open(pack(Show(), TABLE), HERE)
    assert running.cues.cues == ONE
    running.show.open(pack(Show(cues=CueList()), TABLE), HERE)
    assert running.cues.cues.cue == ()


@pytest.mark.parametrize(
    ("cues", "part"),
    [
        ([], "cues: [] is not an object"),
        ({"cue": [{"name": "A", "set": {"black": True}}]}, "Cues: cue 1 (A): set: black is not set by a cue"),
        ({"cue": [{"snapshot": 1}] * 300}, "Cues: cue"),
        ({"cue": [{"snapshot": 1, "wait": ["x"]}]}, "Cues: cue 1, wait: "),
    ],
)
def test_a_wrong_list_is_refused_before_anything_changes(running: Running, cues: Any, part: str) -> None:
    running.cues.replace(ONE)
    data = json.dumps({"tidecast": "show", "version": 1, "controls": {"mix": 0.1}, "cues": cues}).encode()
    with pytest.raises(ShowError) as error:
        running.show.open(data, HERE)
    assert part in error.value.message and running.cues.cues == ONE and running.store.snapshot.value("mix") == 1.0


def test_a_page_elsewhere_brings_no_input_into_a_cue_that_it_could_not_choose(running: Running) -> None:
    data = pack(Show(cues=listed({"name": "A", "set": {"input": "file:/etc/passwd"}})), TABLE)
    with pytest.raises(ShowError, match="Cue 1"):
        running.show.open(data, THERE)
    assert running.cues.cues.cue == ()
    running.show.open(data, HERE)
    assert running.cues.cues.cue[0].values == {"input": "file:/etc/passwd"}


def test_without_a_running_tidecast_and_seen_by_one_that_runs(running: Running, tmp_path: Path) -> None:
    running.cues.replace(ONE)
    path = tmp_path / show_folder.CUES
    eventually(lambda: path.exists() and "Intro" in path.read_text())
    data, show = show_folder.save(tmp_path, TABLE)
    assert show.cues == ONE and unpack(data, TABLE).cues == ONE
    _, kept = show_folder.open_show(tmp_path, pack(Show(cues=OTHER), TABLE), TABLE)
    assert kept is not None and unpack(kept.read_bytes(), TABLE).cues == ONE
    eventually(lambda: running.cues.cues == OTHER)
