"""Snapshots: numbers, glides, takeover by hand, and what a crash, a full disk or a damaged file leaves."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from bridge.control import files, snapshots
from bridge.control.snapshots import Snapshots, stored_names
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from engine.control import PREFIX
from engine.errors import ControlError


@pytest.fixture
def stage(tmp_path):
    store, telemetry, errors = ControlStore(TABLE), Telemetry(TABLE), []
    telemetry.listen_errors(lambda *e: errors.append(e))
    kept = Snapshots(store, tmp_path / "state" / "snapshots.json", telemetry.error).start()
    yield store, kept, errors, tmp_path / "state" / "snapshots.json"
    kept.stop()


def eventually(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def test_save_and_recall_bring_every_control_back(stage):
    store, _, _, _ = stage
    changed = {c.name: c.from_norm(0.3) for c in TABLE.controls if c.numeric}
    store.set_many({**changed, "prompt_1": "森 forest", "fit": "stretch", "mirror": True, "input": "pattern:bars"})
    wanted = store.values()
    assert store.handle(PREFIX + "/snapshot/save", [7])
    store.set_many({c.name: c.default for c in TABLE.controls})
    assert store.handle(PREFIX + "/snapshot/recall", ["7"])
    assert store.values() == wanted


def test_a_recall_leaves_recording_alone(stage):
    store, kept, _, _ = stage
    kept.save(1)
    store.set("record", True)
    kept.recall(1)
    assert store.snapshot.value("record") is True
    assert "record" not in stored_names(TABLE)


def test_snapshots_survive_a_restart(stage):
    store, kept, errors, path = stage
    store.set("strength", 0.123)
    kept.save(64)
    kept.stop()
    other = ControlStore(TABLE)
    again = Snapshots(other, path, Telemetry(TABLE).error).start()
    assert again.numbers() == (64,)
    again.recall(64)
    assert other.snapshot.value("strength") == 0.123
    again.stop()
    assert not errors
    assert os.listdir(path.parent) == ["snapshots.json"]


@pytest.mark.parametrize(
    ("address", "args", "part"),
    [
        ("/snapshot/save", [0], "0 is not the number of a snapshot"),
        ("/snapshot/save", [65], "1 to 64"),
        ("/snapshot/recall", [3], r"Nothing is stored under 3 \(stored: none\)"),
    ],
)
def test_bad_numbers_are_answered(stage, address, args, part):
    store, kept, _, _ = stage
    with pytest.raises(ControlError, match=part):
        kept.save(*args) if address.endswith("save") else kept.recall(*args)
    assert not store.handle(PREFIX + address, args)


def test_a_glide_moves_what_glides_through_the_middle_and_switches_the_rest(stage):
    store, kept, _, _ = stage
    store.set_many({"strength": 1.0, "steps": 4, "prompt_1": "there"})
    kept.save(2)
    store.set_many({"strength": 0.0, "steps": 1, "prompt_1": "here"})
    seen = []
    store.listen(lambda name, value, origin: seen.append(value) if name == "strength" else None)
    kept.recall(2, 0.5)
    assert (store.snapshot.value("steps"), store.snapshot.value("prompt_1")) == (4, "there")
    assert store.snapshot.value("strength") < 0.5
    eventually(lambda: store.snapshot.value("strength") == 1.0)
    assert seen == sorted(seen)
    assert len([v for v in seen if 0.1 < v < 0.9]) >= 3


def test_a_control_that_is_set_by_hand_stops_gliding(stage):
    store, kept, _, _ = stage
    store.set_many({"strength": 1.0, "mix": 1.0})
    kept.save(2)
    store.set_many({"strength": 0.0, "mix": 0.0})
    kept.recall(2, 0.4)
    store.set("strength", 0.25, "osc:me")
    eventually(lambda: store.snapshot.value("mix") == 1.0)
    assert store.snapshot.value("strength") == 0.25


def test_a_second_recall_replaces_the_glide(stage):
    store, kept, _, _ = stage
    store.set("mix", 1.0)
    kept.save(1)
    store.set("mix", 0.0)
    kept.save(2)
    kept.recall(1, 30.0)
    kept.recall(2)
    time.sleep(0.1)
    assert store.snapshot.value("mix") == 0.0


def test_one_thread_glides_however_many_recalls_there_are(stage):
    store, kept, _, _ = stage
    for number in (1, 2):
        store.set("mix", float(number - 1))
        kept.save(number)
    for number in range(300):
        kept.recall(number % 2 + 1, 60.0)
    assert sum(thread.name == "glide" for thread in threading.enumerate()) == 1
    kept.recall(1, 0.1)
    eventually(lambda: store.snapshot.value("mix") == 0.0)
    eventually(lambda: all(thread.name != "glide" for thread in threading.enumerate()))


def test_a_full_disk_is_reported_and_the_old_file_stays(stage, monkeypatch):
    store, kept, errors, path = stage
    kept.save(1)
    eventually(path.exists)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    answers = []
    store.handle(PREFIX + "/snapshot/save", [2], reply=lambda *answer: answers.append(answer))
    eventually(lambda: answers)
    assert "No space left" in answers[0][1][1]
    assert "No space left" in errors[0][1]
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["snapshots.json"]
    kept.recall(2)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"snapshots": 3}', b'{"snapshots": {"x": {}}}', b"\xff\xfe"])
def test_a_damaged_file_is_set_aside_and_replaced(tmp_path, content):
    path = tmp_path / "snapshots.json"
    path.write_bytes(content)
    errors = []
    kept = Snapshots(ControlStore(TABLE), path, lambda *e: errors.append(e)).start()
    assert kept.numbers() == ()
    assert "set aside as snapshots.damaged-1.json" in errors[0][1]
    assert (tmp_path / "snapshots.damaged-1.json").read_bytes() == content
    kept.save(5)
    kept.stop()
    assert "5" in json.loads(path.read_bytes())["snapshots"]


def test_unknown_values_of_another_version_are_ignored(tmp_path):
    path = tmp_path / "snapshots.json"
    path.write_text(json.dumps({"version": 9, "snapshots": {"1": {"mix": 0.5, "warp": 3, "fit": "round"}}}))
    store = ControlStore(TABLE)
    kept = Snapshots(store, path, pytest.fail).start()
    kept.recall(1)
    assert store.snapshot.value("mix") == 0.5
    assert store.snapshot.value("fit") == "cover"
    kept.stop()


KILLED = """
import sys
from pathlib import Path
from bridge.control.files import write_atomically
path = Path(sys.argv[1])
while True:
    for letter in b"ab":
        write_atomically(path, bytes([letter]) * 300_000)
        print("x", flush=True)
"""


def test_a_kill_at_any_time_leaves_a_complete_file(tmp_path):
    path = tmp_path / "file"
    for wait in (0.0, 0.013, 0.031):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(wait)
        child.kill()
        child.wait()
        child.stdout.close()
        data = path.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1


def test_the_range_is_the_one_that_the_help_names():
    assert (snapshots.FIRST, snapshots.LAST) == (1, 64)
