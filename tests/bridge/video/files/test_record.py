"""Recording: real files from real processes, slow disks, crashes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from bridge.video.files import record
from bridge.video.files.record import Recorder
from engine.frame import Frame
from tests.support.browser import wait

WIDTH, HEIGHT, FPS = 160, 96, 30


class Room:
    """A recorder with what it said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.troubles: list[str] = []
        self.recorder = Recorder(WIDTH, HEIGHT, folder, status=self.said.append, trouble=self.troubles.append)

    @property
    def path(self) -> str:
        return self.said[-1] if self.said else ""

    def play(self, count: int, which: str = "output", level: int = 0) -> float:
        """Offer frames of rising brightness at the usual rate; returns the longest time an offer took, seconds."""
        longest = 0.0
        for i in range(count):
            pixels = np.full((HEIGHT, WIDTH, 3), level or 40 + i % 160, np.uint8)
            begin = time.perf_counter()
            self.recorder.offer(which, Frame(pixels, seq=i))
            longest = max(longest, time.perf_counter() - begin)
            time.sleep(1 / FPS)
        return longest


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "takes")
    yield room
    room.recorder.close()


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def test_output_and_input_become_two_playable_files(room: Room, tmp_path: Path) -> None:
    room.recorder.want(True, True)
    wait(lambda: len(room.recorder.pids) == 2, "both processes")
    room.play(20)
    room.play(10, "input", level=200)
    room.recorder.want(False, False)
    wait(lambda: room.path == "", "the end")
    room.recorder.close()
    assert room.troubles == []
    output, given = sorted((tmp_path / "takes").iterdir(), key=lambda p: "input" in p.name)
    pictures = frames_of(output)
    assert len(pictures) == 20
    means = [p.mean() for p in pictures]
    assert means == sorted(means) and means[0] == pytest.approx(40, abs=4)
    assert len(frames_of(given)) == 10 and frames_of(given)[0].mean() == pytest.approx(200, abs=4)
    with av.open(str(output)) as container:
        pts = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    assert 20 / FPS * 0.8 < pts[-1] < 20 / FPS * 3, "the file keeps the time of the show"


def test_a_recording_that_ends_before_its_process_is_up_keeps_its_frames(room: Room, tmp_path: Path) -> None:
    room.recorder.want(True, False)
    wait(lambda: room.recorder.pids, "the process")
    for i in range(5):
        room.recorder.offer("output", Frame(np.full((HEIGHT, WIDTH, 3), 9, np.uint8), seq=i))
    room.recorder.want(False, False)
    wait(lambda: room.path == "", "the end")
    room.recorder.close()
    assert room.troubles == []
    assert len(frames_of(next((tmp_path / "takes").iterdir()))) == 5


def test_nothing_is_copied_while_nothing_is_recorded(room: Room, tmp_path: Path) -> None:
    room.play(3)
    assert room.recorder.pids == {} and not (tmp_path / "takes").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_process_leaves_a_playable_file(room: Room) -> None:
    room.recorder.want(True, False)
    wait(lambda: room.recorder.pids, "the process")
    room.play(5)
    path = Path(room.path)
    room.play(75)
    os.kill(room.recorder.pids["output"], signal.SIGKILL)
    wait(lambda: room.troubles, "the report")
    assert "died" in room.troubles[0]
    wait(lambda: room.path == "", "the reading of no file")
    assert len(frames_of(path)) >= FPS, "all but the last second is there"
    room.recorder.want(True, False)
    wait(lambda: room.recorder.pids, "a new recording after the crash")
    assert Path(room.path) != path


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_stalled_disk_costs_the_recording_frames_and_the_show_nothing(room: Room) -> None:
    room.recorder.want(True, False)
    wait(lambda: room.recorder.pids, "the process")
    room.play(10)
    path, pid = Path(room.path), room.recorder.pids["output"]
    os.kill(pid, signal.SIGSTOP)
    longest = room.play(record.RING_DEPTH + 40)
    os.kill(pid, signal.SIGCONT)
    room.play(10)
    room.recorder.want(False, False)
    wait(lambda: room.troubles, "the report")
    assert longest < 1.0, "an offer never waits for the recording, which stood still for two seconds"
    assert "frames are missing" in room.troubles[0]
    assert 20 <= len(frames_of(path)) < 10 + record.RING_DEPTH + 50


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    room = Room(tmp_path / "file" / "takes")
    room.recorder.want(True, True)
    wait(lambda: room.troubles, "the report")
    assert "not recorded" in room.troubles[0]
    room.recorder.close()


def test_a_full_disk_is_reported_and_ends_the_recording(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "LEAST_FREE_BYTES", 2**62)
    room.recorder.want(True, False)
    wait(lambda: room.troubles, "the report")
    assert "MiB are free" in room.troubles[0] and room.path == ""


def test_a_switch_that_is_never_left_alone_does_not_fill_the_machine_with_processes(room: Room, tmp_path: Path) -> None:
    most = 0
    for _ in range(60):
        room.recorder.want(True, False)
        time.sleep(0.02)
        room.recorder.want(False, False)
        time.sleep(0.02)
        most = max(most, len(multiprocessing.active_children()))
    assert most <= record.MOST_FINISHING + 1
    room.recorder.want(True, False)  # and it still does what it is told last
    wait(lambda: "output" in room.recorder.pids, "what was asked for last is done")
    path = Path(room.path)
    room.play(10)
    room.recorder.close()
    assert len(frames_of(path)) >= 9 and not room.troubles
