"""Pictures and colours of snapshots: how a picture is made, where, what it may cost, and what a damaged one does."""

import base64
import errno
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

from bridge.control import files, snapshots
from bridge.control.snapshot_commands import COLORS
from bridge.control.snapshots import MAX_WAITING, Snapshots
from bridge.control.store import ControlStore
from bridge.control.stored import thumbnail
from bridge.control.stored.content import COLOR_KEY, PICTURE_KEY
from bridge.control.stored.thumbnail import LONGEST_TEXT, MAX_BYTES, WIDEST, Thumbnail, decoded, encoded
from bridge.table import TABLE
from engine.control import PREFIX
from engine.frame import Frame, PixelFormat


def frame(color=(200, 30, 60), width=1920, height=1080):
    """A picture of one colour, in the order of channels that a source may have."""
    pixels = np.full((height, width, 4), (*color[::-1], 255), np.uint8)
    return Frame(pixels, PixelFormat.BGRA)


def jpeg(width, height, quality=80):
    out = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(out, "JPEG", quality=quality)
    return out.getvalue()


def text_of(data):
    return base64.b64encode(data).decode()


def eventually(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def stage(tmp_path):
    """Store, snapshots, the list whose last entry is on air, errors, file."""
    store, errors, sent = ControlStore(TABLE), [], []
    path = tmp_path / "snapshots.json"
    kept = Snapshots(store, path, lambda *e: errors.append(e), lambda: sent[-1] if sent else None).start()
    yield store, kept, sent, errors, path
    kept.stop()


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (256, 256), (90, 60), (1, 1)])
def test_a_picture_is_small_and_has_the_colours_and_the_shape_of_the_frame(size):
    with Image.open(io.BytesIO(encoded(frame((200, 30, 60), *size)))) as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) == min(WIDEST, max(size))
        assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.02)
        assert np.abs(np.asarray(picture).mean((0, 1)) - (200, 30, 60)).max() < 4


def test_a_picture_that_stays_too_large_is_left_out(monkeypatch):
    noise = Frame(np.random.default_rng(1).integers(0, 255, (160, 160, 3), np.uint8))
    assert 0 < len(encoded(noise)) <= MAX_BYTES
    monkeypatch.setattr(thumbnail, "MAX_BYTES", 1000)
    assert encoded(noise) == b""
    made = Thumbnail(noise)
    assert (made.text, made.jpeg) == ("", None)


def test_a_save_keeps_the_picture_of_its_moment_encoded_on_the_writers_thread(stage, monkeypatch):
    _, kept, sent, errors, path = stage
    threads = []
    original = thumbnail.encoded
    monkeypatch.setattr(thumbnail, "encoded", lambda f: threads.append(threading.current_thread().name) or original(f))
    kept.save(1)
    sent.append(frame((200, 30, 60)))
    kept.save(2)
    sent.append(frame((20, 130, 60)))
    kept.save(3)
    eventually(lambda: set(kept.pictures()) == {2, 3})
    assert set(threads) == {"snapshots"}
    for number, color in ((2, (200, 30, 60)), (3, (20, 130, 60))):
        with Image.open(io.BytesIO(kept.pictures()[number])) as picture:
            assert np.abs(np.asarray(picture).mean((0, 1)) - color).max() < 4
    pictures = kept.pictures()
    kept.stop()
    assert PICTURE_KEY not in json.loads(path.read_bytes())["snapshots"]["1"]
    again = Snapshots(ControlStore(TABLE), path, pytest.fail).start()
    assert again.pictures() == pictures and again.numbers() == (1, 2, 3)
    again.stop()
    assert errors == []


def test_a_picture_that_fails_costs_the_snapshot_nothing(stage, monkeypatch, caplog):
    _, kept, sent, errors, path = stage

    def defect(frame):
        raise RuntimeError("a defect")

    monkeypatch.setattr(thumbnail, "encoded", defect)
    sent.append(frame())
    kept.save(1)
    eventually(path.exists)
    kept.stop()
    stored = json.loads(path.read_bytes())["snapshots"]["1"]
    assert stored["mix"] == 1.0 and PICTURE_KEY not in stored and errors == []
    assert "a defect" in caplog.text


def test_many_saves_while_the_disk_is_slow_hold_few_frames(stage, monkeypatch):
    _, kept, sent, _, path = stage
    entered, released = threading.Event(), threading.Event()
    write = files.write_atomically

    def slow(*args):
        entered.set()
        assert released.wait(30.0)
        write(*args)

    monkeypatch.setattr("bridge.control.stored.storage.write_atomically", slow)
    sent.append(frame(width=64, height=36))
    kept.save(64)
    assert entered.wait(30.0)
    for number in range(1, 31):
        sent.append(frame((number, 0, 0), 64, 36))
        kept.save(number)
        kept.save(number + 31)  # of the same frame: costs nothing more
    assert len(kept._waiting) == MAX_WAITING
    released.set()
    eventually(lambda: len(kept.pictures()) == 1 + 2 * MAX_WAITING)
    kept.stop()
    assert len(json.loads(path.read_bytes())["snapshots"]) == 61, "every snapshot is saved, with a picture or without"


def test_a_full_disk_keeps_the_picture_with_its_snapshot_for_the_next_write(stage, monkeypatch):
    _, kept, sent, errors, path = stage

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(files.os, "fsync", full)
        sent.append(frame())
        kept.save(1)
        eventually(lambda: errors)
    kept.save(2)
    kept.stop()
    assert all(decoded(json.loads(path.read_bytes())["snapshots"][n][PICTURE_KEY]) for n in ("1", "2"))


def test_a_colour_is_given_kept_by_a_save_taken_away_and_brought_back(stage):
    store, kept, sent, errors, path = stage
    answers = []

    def send(address, *args):
        return store.handle(PREFIX + "/snapshot" + address, args, reply=lambda *answer: answers.append(answer[1][1]))

    sent.append(frame())
    assert send("/save", 5) and send("/color", 5, " Green ") and kept.colors() == {5: "green"}
    eventually(lambda: kept.pictures())
    before = kept.pictures()
    assert send("/name", 5, "Intro") and send("/color", 5, "blue")
    assert (kept.pictures(), kept.names(), kept.colors()) == (before, {5: "Intro"}, {5: "blue"})
    assert send("/color", 5, "") and kept.colors() == {}
    assert send("/undo") and kept.colors() == {5: "blue"}
    assert send("/save", 5) and kept.colors() == {5: "blue"}, "a save keeps the colour"
    assert not send("/color", 5, "mauve") and not send("/color", 6, "red") and not send("/color", 65, "red")
    assert "'mauve' is not a colour" in answers[0] and ", ".join(COLORS) in answers[0]
    assert "Nothing is stored under 6" in answers[1]
    kept.stop()
    assert json.loads(path.read_bytes())["snapshots"]["5"][COLOR_KEY] == "blue" and errors == []


def test_taking_back_a_save_brings_the_old_picture_back_even_when_it_was_not_encoded_yet(stage):
    _, kept, sent, _, _ = stage
    sent.append(frame((200, 30, 60)))
    kept.save(1)
    sent.append(frame((20, 130, 60)))
    kept.save(1)
    kept.undo()
    eventually(kept.pictures)
    with Image.open(io.BytesIO(kept.pictures()[1])) as picture:
        assert np.abs(np.asarray(picture).mean((0, 1)) - (200, 30, 60)).max() < 4


DAMAGED = {
    "no text": 5,
    "a list": [1],
    "nothing": None,
    "empty": "",
    "no base64": "%%%",
    "no ASCII": "\u68ee" * 8,
    "no picture": text_of(b"not a picture"),
    "half a picture": text_of(jpeg(160, 90)[:900]),
    "another format": text_of(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "too wide": text_of(jpeg(640, 8)),
    "too long": "A" * (LONGEST_TEXT + 4),
}


@pytest.mark.parametrize("picture", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_or_oversized_picture_is_ignored_and_stays_in_the_file(tmp_path, picture):
    path = tmp_path / "snapshots.json"
    good = text_of(jpeg(160, 90))
    first = {"mix": 0.5, PICTURE_KEY: picture, COLOR_KEY: ["red"]}
    second = {"mix": 0.25, PICTURE_KEY: good, COLOR_KEY: "mauve"}
    path.write_text(json.dumps({"version": 1, "snapshots": {"1": first, "2": second}}))
    store = ControlStore(TABLE)
    kept = Snapshots(store, path, pytest.fail).start()
    assert kept.pictures() == {2: base64.b64decode(good)} and kept.colors() == {}
    kept.recall(1)
    assert store.snapshot.value("mix") == 0.5
    kept.save(3)
    kept.stop()
    in_file = json.loads(path.read_bytes())["snapshots"]
    assert in_file["1"] == first and in_file["2"] == second


def test_a_file_of_a_newer_version_loses_nothing(tmp_path):
    path = tmp_path / "snapshots.json"
    newer = {"version": 2, "banks": {"1": "Ballet"}, "snapshots": {"1": {"mix": 0.5, "pad-cue": 7}, "99": {"mix": 0.1}}}
    path.write_text(json.dumps(newer))
    kept = Snapshots(ControlStore(TABLE), path, pytest.fail).start()
    kept.save(2)
    kept.rename(1, "Intro")
    kept.stop()
    content = json.loads(path.read_bytes())
    assert content["version"] == 2 and content["banks"] == {"1": "Ballet"}
    assert content["snapshots"]["1"] == {"mix": 0.5, "pad-cue": 7, "as": "Intro"}
    assert content["snapshots"]["99"] == {"mix": 0.1}


def test_every_limit_is_the_documented_one():
    assert (WIDEST, MAX_BYTES, len(COLORS), snapshots.MAX_WAITING) == (160, 16 * 1024, 8, 8)
