"""Snapshots: numbers, glides, takeover by hand, and what a crash, a full disk or a damaged file leaves."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from bridge.control import files, snapshot_commands
from bridge.control.origin import Origin, Trust
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.control.stored.content import stored_names
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from engine.control import PREFIX, Kind
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


PANIC = {"bypass", "freeze", "black"}
SESSION = {"compare", "tempo_bpm", "tempo_bend", "cue_capture", "mask_view"}
"""What no snapshot holds either: how the player looks, and what may be that of other programs too."""

ON_REQUEST = {
    "input": {"input": "pattern:bars", "mask_input": "pattern:waves", "mask_background_input": "pattern:dance"},
    "seed": {"seed": 77},
    "latency": {"slo_auto": False, "slo_latency": 900.0},
    "recording": {"record": True, "record_input": True},
    "tempo": {
        "tempo_source": "tap",
        "tempo_quantum": 3,
        "tempo_midi_port": "Mixer",
        "snap": "bar",
        "snap_trim": 40.0,
    },
    "audio": {
        "audio_source": "ndi",
        "audio_auto": False,
        "audio_gain": -6.0,
        "audio_release": 300.0,
        "audio_low_edge": 200.0,
        "audio_high_edge": 3000.0,
    },
    "modulation": {"mod_depth": 0.5, **{f"mod_{n}": f"mix sine hz={n}" for n in range(1, 17)}},
}
"""Words of a save, and the controls that each adds to a snapshot."""


def switch_all(store):
    """Give every control another value than its default; returns all values."""
    numbers = {c.name: c.from_norm(0.3) for c in TABLE.controls if c.numeric}
    switches = {c.name: not c.default for c in TABLE.controls if c.kind is Kind.BOOL}
    texts = {"prompt_1": "森 forest", "fit": "stretch"}
    store.set_many({**numbers, **switches, **texts, **{n: v for row in ON_REQUEST.values() for n, v in row.items()}})
    return store.values()


@pytest.mark.parametrize("words", ["", *ON_REQUEST, "seed, Input", "input seed latency recording"])
@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_a_recall_brings_the_look_back_and_what_the_save_asked_for_and_never_touches_panic(stage, words, seconds):
    store, _, _, _ = stage
    wanted = switch_all(store)
    assert store.handle(PREFIX + "/snapshot/save", [7, words] if words else [7])
    store.set_many({c.name: c.default for c in TABLE.controls})
    written = []
    store.listen(lambda name, value, origin: written.append(name))
    assert store.handle(PREFIX + "/snapshot/recall", ["7", seconds])
    eventually(lambda: store.snapshot.value("strength") == wanted["strength"])
    asked = {name for word, row in ON_REQUEST.items() if word in words.lower() for name in row}
    left = PANIC | SESSION | {name for row in ON_REQUEST.values() for name in row} - asked
    defaults = {c.name: c.default for c in TABLE.controls}
    assert store.values() == {n: defaults[n] if n in left else v for n, v in wanted.items()}
    assert not left & set(written), "not even the same value is written"


@pytest.mark.parametrize("panic", sorted(PANIC))
def test_a_look_that_was_stored_in_panic_does_not_bring_it_back_and_a_recall_does_not_end_it(stage, panic):
    store, kept, _, path = stage
    store.set(panic, True)
    kept.save(1)
    store.set(panic, False)
    kept.recall(1)
    assert store.snapshot.value(panic) is False
    kept.save(2)
    store.set(panic, True)
    kept.recall(2)
    assert store.snapshot.value(panic) is True
    eventually(lambda: path.exists() and numbers_in(path) == {1, 2})
    assert not PANIC & set(json.loads(path.read_bytes())["snapshots"]["1"])


def test_a_file_of_an_older_version_is_recalled_without_panic_source_seed_target_and_recording(tmp_path):
    path = tmp_path / "snapshots.json"
    old = {c.name: c.default for c in TABLE.controls}
    old |= {"black": True, "freeze": True, "bypass": True, "input": "pattern:bars", "seed": 5, "slo_latency": 100.0}
    path.write_text(json.dumps({"version": 1, "snapshots": {"1": old | {"mix": 0.5, "record": True}}}))
    store = ControlStore(TABLE)
    kept = Snapshots(store, path, pytest.fail).start()
    before = store.values()
    kept.recall(1)
    kept.stop()
    assert store.values() == before | {"mix": 0.5}


@pytest.mark.parametrize("asked", ["input", 3, None, {"input": 1}, [["input"], 2]])
def test_words_in_the_file_that_are_no_list_of_words_ask_for_nothing(tmp_path, asked):
    path = tmp_path / "snapshots.json"
    path.write_text(
        json.dumps({"version": 1, "snapshots": {"1": {"with": asked, "input": "pattern:bars", "mix": 0.5}}})
    )
    store = ControlStore(TABLE)
    kept = Snapshots(store, path, pytest.fail).start()
    kept.recall(1)
    kept.stop()
    assert (store.snapshot.value("mix"), store.snapshot.value("input")) == (0.5, "")


def test_a_word_that_cannot_be_stored_is_refused_and_nothing_is_saved(stage):
    store, kept, _, _ = stage
    answers = []
    assert not store.handle(PREFIX + "/snapshot/save", [1, "black"], reply=lambda *answer: answers.append(answer))
    assert "'black' cannot be stored besides the look" in answers[0][1][1]
    for word in ON_REQUEST:
        assert word in answers[0][1][1]
    assert kept.numbers() == ()


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
    assert {*os.listdir(path.parent)} - {files.LOCK} == {"snapshots.json"}  # on Windows, the lock goes when unlocked


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
    store.set("strength", 0.25, Origin("osc:me", Trust.MACHINE))
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


def test_a_glide_that_fails_is_told_and_the_next_one_works(stage):
    store, kept, errors, _ = stage
    store.set("mix", 1.0)
    kept.save(1)
    store.set("mix", 0.0)

    def defect(value, origin):
        raise RuntimeError("a defect")

    lift = store.restrict("mix", defect)
    kept.recall(1, 0.2)
    eventually(lambda: errors)
    assert "The glide ended early: a defect" in errors[0][1]
    lift()
    kept.recall(1, 0.1)
    eventually(lambda: store.snapshot.value("mix") == 1.0)


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
    assert {*os.listdir(path.parent)} - {files.LOCK} == {"snapshots.json"}  # on Windows, the lock goes when unlocked
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
    errors = []
    kept = Snapshots(store, path, lambda *e: errors.append(e)).start()
    kept.recall(1)
    assert store.snapshot.value("mix") == 0.5
    assert store.snapshot.value("fit") == "cover"
    ((topic, reason),) = errors
    assert topic == PREFIX + "/snapshot/recall"
    assert "Snapshot 1, fit: 'round' is not one of cover" in reason
    kept.save(2)
    kept.stop()
    assert json.loads(path.read_text())["snapshots"]["1"] == {"mix": 0.5, "warp": 3, "fit": "round"}, "kept for others"


def another(stage, **values):
    """Another Tidecast with the same file."""
    store = ControlStore(TABLE)
    store.set_many(values)
    return store, Snapshots(store, stage[3], pytest.fail).start()


def numbers_in(path):
    return {int(number) for number in json.loads(path.read_bytes())["snapshots"]}


def test_two_instances_keep_each_others_snapshots(stage):
    """Each had the whole file in memory and wrote it back: what the other had saved since was gone."""
    store, kept, _, path = stage
    other_store, other = another(stage, mix=0.75)
    store.set("mix", 0.25)
    kept.save(1)
    other.save(2)
    for number in (1, 2):
        eventually(lambda number=number: number in kept.numbers() and number in other.numbers())
    assert numbers_in(path) == {1, 2}
    other.recall(1)
    kept.recall(2)
    assert (other_store.snapshot.value("mix"), store.snapshot.value("mix")) == (0.25, 0.75)
    other.stop()


def test_a_number_that_two_save_holds_what_was_saved_last(stage):
    _, kept, _, path = stage
    kept.save(1)
    kept.save(3)
    eventually(lambda: path.exists() and numbers_in(path) == {1, 3})
    _, other = another(stage, mix=0.125)
    other.save(3)
    other.stop()
    eventually(lambda: kept._stored[3]["mix"] == 0.125)
    kept.save(1)
    kept.stop()
    assert json.loads(path.read_bytes())["snapshots"]["3"]["mix"] == 0.125


SAVER = """
import sys, time
from pathlib import Path
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.table import TABLE
path, first = Path(sys.argv[1]), int(sys.argv[2])
kept = Snapshots(ControlStore(TABLE), path, lambda *e: sys.exit(str(e))).start()
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + 16):
    kept.save(number)
    time.sleep(0.002)
kept.stop()
"""


def test_many_processes_that_save_at_once_lose_nothing(tmp_path):
    path = tmp_path / "snapshots.json"
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    firsts = (1, 17, 33, 49)
    savers = [subprocess.Popen([sys.executable, "-c", SAVER, str(path), str(first)], **pipe) for first in firsts]
    for saver in savers:
        assert saver.stdout.readline().strip() == b"ready"
    for saver in savers:
        saver.stdin.write(b"go\n")
        saver.stdin.flush()
    for saver in savers:
        saver.communicate(timeout=60)
        assert saver.returncode == 0
    assert numbers_in(path) == set(range(1, 65))


def test_a_save_waits_for_the_lock_and_says_when_it_does_not_get_it(stage, monkeypatch):
    _, kept, errors, path = stage
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.05)
    with files.locked(path):
        kept.save(1)
        eventually(lambda: errors)
    assert "another Tidecast is writing there" in errors[0][1]
    assert not path.exists()
    kept.save(2)
    eventually(path.exists)
    assert numbers_in(path) == {1, 2}, "the save that failed is written with the next one"


def test_a_file_that_cannot_be_read_is_not_replaced(tmp_path):
    path = tmp_path / "snapshots.json"
    path.mkdir()  # not even root can read it as a file
    errors = []
    kept = Snapshots(ControlStore(TABLE), path, lambda *e: errors.append(e)).start()
    kept.save(1)
    kept.stop()
    assert path.is_dir()
    assert ["cannot be read" in errors[0][1], "cannot be written" in errors[1][1], len(errors)] == [True, True, 2]


def test_a_value_that_cannot_be_read_back_is_reported_and_the_rest_recalled(stage):
    store, kept, errors, path = stage
    poisoned = {"input": "half \ud800", "strength": [1], "mix": 0.5, "steps": 10**400, "prompt_1": None}
    path.parent.mkdir()
    poisoned["with"] = ["input"]
    path.write_text(json.dumps({"version": 1, "snapshots": {"1": poisoned, "2": {"mix": 0.25}}}))
    eventually(lambda: kept.numbers() == (1, 2))
    store.set("input", "pattern:waves")
    kept.recall(1)
    assert (store.snapshot.value("mix"), store.snapshot.value("input")) == (0.5, "pattern:waves")
    wrong = {reason.split(":")[0] for _, reason in errors}
    assert wrong == {"Snapshot 1, input", "Snapshot 1, strength", "Snapshot 1, steps", "Snapshot 1, prompt_1"}
    assert all(len(reason) < 300 for _, reason in errors)
    kept.save(3)
    kept.stop()
    assert json.loads(path.read_bytes())["snapshots"]["1"] == poisoned, "somebody can still mend it by hand"


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


KILLED_AT = """
import os, sys
from pathlib import Path
from bridge.control import files

path, wanted, calls = Path(sys.argv[1]), int(sys.argv[2]), []

def dies(name):
    function = getattr(os, name)
    def call(*args):
        calls.append(name)
        if len(calls) == wanted:
            os._exit(9)
        return function(*args)
    setattr(os, name, call)

for name in ("open", "fsync", "replace", "close"):
    dies(name)
files.write_atomically(path, b"new" * 100_000)
print(*calls)
"""


def test_a_kill_before_any_step_of_a_write_leaves_the_old_file_or_the_new_and_nothing_else_after_the_next_start(
    tmp_path,
):
    path = tmp_path / "snapshots.json"

    def killed_at(step):
        return subprocess.run([sys.executable, "-c", KILLED_AT, str(path), str(step)], capture_output=True, text=True)

    steps = killed_at(0).stdout.split()
    assert steps[:3] == ["open", "fsync", "replace"], "the content is on the disk before the name is, for a power loss"
    assert steps[3:] == (["open", "fsync", "close"] if os.name == "posix" else []), "and then the folder"
    new = path.read_bytes()
    old = json.dumps({"snapshots": {}}).encode()
    for step in range(1, len(steps) + 1):
        path.write_bytes(old)
        assert killed_at(step).returncode == 9
        assert path.read_bytes() == (old if step <= 3 else new)
        path.write_bytes(old)
        Snapshots(ControlStore(TABLE), path, pytest.fail).start().stop()
        assert set(os.listdir(tmp_path)) <= {"snapshots.json", files.LOCK}


def test_a_file_that_a_virus_scanner_has_open_is_replaced_when_it_is_closed(tmp_path, monkeypatch):
    replace, refused = os.replace, []

    def busy(*args):
        if len(refused) < 3:
            refused.append(args)
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        replace(*args)

    monkeypatch.setattr(files.os, "replace", busy)
    monkeypatch.setattr(files.sys, "platform", "win32")
    files.write_atomically(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_the_range_is_the_one_that_the_help_names():
    assert (snapshot_commands.FIRST, snapshot_commands.LAST) == (1, 64)


def test_snapshots_are_named_deleted_and_brought_back(stage):
    """Over OSC, in memory and in the file; a save keeps the name; every change is taken back in turn."""
    store, kept, errors, path = stage
    answers = []

    def send(address, *args):
        return store.handle(PREFIX + "/snapshot" + address, args, reply=lambda *answer: answers.append(answer[1][1]))

    store.set("mix", 0.2)
    assert send("/save", 5) and send("/name", 5, "  Intro \n  fire ") and kept.names() == {5: "Intro fire"}
    store.set("mix", 0.8)
    assert send("/save", 5) and kept.names() == {5: "Intro fire"}, "a save keeps the name"
    assert send("/delete", 5) and kept.numbers() == () and kept.names() == {}
    assert not send("/delete", 5) and not send("/name", 5, "x") and not send("/delete", 65)
    assert "Nothing is stored under 5" in answers[0]
    for mix, name in ((0.8, "Intro fire"), (0.2, "Intro fire"), (0.2, "")):
        assert send("/undo", 1)
        kept.recall(5)
        assert store.snapshot.value("mix") == mix and kept.names().get(5, "") == name
    assert send("/undo") and kept.numbers() == ()
    assert not send("/undo") and "nothing to take back" in answers[-1]
    send("/save", 7)
    send("/name", 7, "n" * 99)
    send("/save", 8)
    send("/delete", 8)
    kept.stop()
    assert errors == []
    again = Snapshots(ControlStore(TABLE), path, pytest.fail).start()
    assert again.numbers() == (7,) and again.names() == {7: "n" * 40}
    again.stop()


def test_what_one_tidecast_deletes_is_gone_from_the_other(stage):
    _, kept, errors, path = stage
    other = Snapshots(ControlStore(TABLE), path, pytest.fail).start()
    kept.save(1)
    kept.save(2)
    eventually(lambda: other.numbers() == (1, 2))
    kept.delete(1)
    eventually(lambda: other.numbers() == (2,))
    other.save(3)
    other.stop()
    eventually(lambda: kept.numbers() == (2, 3))
    assert errors == []
