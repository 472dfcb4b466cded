"""Recording: real files from real processes, slow disks, crashes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from bridge.video.files import record, takes
from bridge.video.files.record import Recorder
from engine.frame import Frame
from tests.support.browser import wait

WIDTH, HEIGHT, FPS = 160, 96, 30


class Rig:
    """A recorder, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.statuses: list[str] = []
        self.troubles: list[str] = []
        self.recorder = Recorder(WIDTH, HEIGHT, folder, status=self.statuses.append, trouble=self.troubles.append)

    @property
    def path(self) -> str:
        return self.statuses[-1] if self.statuses else ""

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
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "takes")
    yield rig
    rig.recorder.close()


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def written(path: Path) -> int:
    """How many pictures a file holds that is still being written."""
    try:
        return len(frames_of(path))
    except av.error.FFmpegError:
        return 0  # its head is not there yet


def test_output_and_input_become_two_playable_files(rig: Rig, tmp_path: Path) -> None:
    rig.recorder.want(True, True)
    wait(lambda: len(rig.recorder.pids) == 2, "both processes")
    rig.play(20)
    rig.play(10, "input", level=200)
    rig.recorder.want(False, False)
    wait(lambda: rig.path == "", "the end")
    rig.recorder.close()
    assert rig.troubles == []
    output, given = sorted((tmp_path / "takes").iterdir(), key=lambda p: "input" in p.name)
    pictures = frames_of(output)
    assert len(pictures) == 20
    means = [p.mean() for p in pictures]
    assert means == sorted(means) and means[0] == pytest.approx(40, abs=4)
    assert len(frames_of(given)) == 10 and frames_of(given)[0].mean() == pytest.approx(200, abs=4)
    with av.open(str(output)) as container:
        pts = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    assert 20 / FPS * 0.8 < pts[-1] < 20 / FPS * 3, "the file keeps the time of the show"


def test_a_recording_that_ends_before_its_process_has_started_keeps_its_frames(rig: Rig, tmp_path: Path) -> None:
    rig.recorder.want(True, False)
    wait(lambda: rig.recorder.pids, "the process")
    for i in range(5):
        rig.recorder.offer("output", Frame(np.full((HEIGHT, WIDTH, 3), 9, np.uint8), seq=i))
    rig.recorder.want(False, False)
    wait(lambda: rig.path == "", "the end")
    rig.recorder.close()
    assert rig.troubles == []
    assert len(frames_of(next((tmp_path / "takes").iterdir()))) == 5


def test_nothing_is_copied_while_nothing_is_recorded(rig: Rig, tmp_path: Path) -> None:
    rig.play(3)
    assert rig.recorder.pids == {} and not (tmp_path / "takes").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_process_leaves_a_playable_file(rig: Rig) -> None:
    rig.recorder.want(True, False)
    wait(lambda: rig.recorder.pids, "the process")
    rig.play(5)
    path = Path(rig.path)

    def played() -> bool:
        rig.play(5)
        return written(path) >= FPS

    wait(played, "a second in the file, while the recording runs")
    os.kill(rig.recorder.pids["output"], signal.SIGKILL)
    wait(lambda: rig.troubles, "the report")
    assert "died" in rig.troubles[0]
    wait(lambda: rig.path == "", "the reading of no file")
    assert written(path) >= FPS
    rig.recorder.want(True, False)
    wait(lambda: rig.recorder.pids, "a new recording after the crash")
    assert Path(rig.path) != path


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_stalled_disk_costs_only_the_recording_frames(rig: Rig) -> None:
    rig.recorder.want(True, False)
    wait(lambda: rig.recorder.pids, "the process")
    rig.play(10)
    path, pid = Path(rig.path), rig.recorder.pids["output"]
    os.kill(pid, signal.SIGSTOP)
    longest = rig.play(record.RING_DEPTH + 40)
    os.kill(pid, signal.SIGCONT)
    rig.play(10)
    rig.recorder.want(False, False)
    wait(lambda: rig.troubles, "the report")
    assert longest < 1.0, "an offer never waits for the recording, which stood still for two seconds"
    assert "frames are missing" in rig.troubles[0]
    assert 20 <= len(frames_of(path)) < 10 + record.RING_DEPTH + 50


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rig = Rig(tmp_path / "file" / "takes")
    rig.recorder.want(True, True)
    wait(lambda: rig.troubles, "the report")
    assert "not recorded" in rig.troubles[0]
    rig.recorder.close()


def test_a_full_disk_is_reported_and_ends_the_recording(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MIN_FREE_BYTES", 2**62)
    rig.recorder.want(True, False)
    wait(lambda: rig.troubles, "the report")
    assert "MiB are free" in rig.troubles[0] and rig.path == ""


def test_switching_on_and_off_repeatedly_does_not_start_endless_processes(rig: Rig, tmp_path: Path) -> None:
    most = 0
    for _ in range(60):
        rig.recorder.want(True, False)
        time.sleep(0.02)
        rig.recorder.want(False, False)
        time.sleep(0.02)
        most = max(most, len(multiprocessing.active_children()))
    assert most <= record.MAX_FINISHING + 1
    rig.recorder.want(True, False)  # the last call still takes effect
    wait(lambda: "output" in rig.recorder.pids, "what was asked for last is done")
    path = Path(rig.path)
    rig.play(10)
    rig.recorder.close()
    assert len(frames_of(path)) >= 9 and not rig.troubles


def test_pictures_of_another_size_go_into_a_file_of_their_own(rig: Rig, tmp_path: Path) -> None:
    rig.recorder.want(True, False)
    wait(lambda: rig.path, "the process")
    first = rig.path
    for _ in range(5):
        rig.recorder.offer("output", Frame(np.full((HEIGHT, WIDTH, 3), 9, np.uint8)))
    large = Frame(np.full((2 * HEIGHT, 2 * WIDTH, 3), 90, np.uint8))

    def second() -> bool:
        rig.recorder.offer("output", large)
        return rig.path != first

    wait(second, "the second file")
    for _ in range(5):
        rig.recorder.offer("output", large)
    rig.recorder.close()
    assert "" not in rig.statuses[:-1], "between the two files the recording stays switched on"
    assert rig.troubles == []
    sizes = [{p.shape[:2] for p in frames_of(Path(path))} for path in (first, rig.statuses[1])]
    assert sizes == [{(HEIGHT, WIDTH)}, {(2 * HEIGHT, 2 * WIDTH)}]


def test_a_file_that_is_not_finished_in_time_is_not_said_to_be_of_a_process_that_died(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "FINISH_TIMEOUT_S", 0.0)
    rig.recorder.want(True, False)
    wait(lambda: rig.recorder.pids, "the process, which takes a while to be ready")
    rig.recorder.close()
    assert len(rig.troubles) == 1 and "not finished within 0 s" in rig.troubles[0]


def test_an_odd_size_is_reported(rig: Rig) -> None:
    rig.recorder.offer("output", Frame(np.zeros((HEIGHT - 1, WIDTH, 3), np.uint8)))
    rig.recorder.want(True, False)
    wait(lambda: rig.troubles, "the report")
    assert f"{WIDTH}x{HEIGHT - 1}" in rig.troubles[0] and rig.path == ""


def test_two_recordings_that_begin_in_the_same_second_get_a_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takes.time, "strftime", lambda form: "Tidecast 2026-11-29 20-00-00")
    rigs = [Rig(tmp_path) for _ in range(2)]  # as two instances with the same folder
    for rig in rigs:
        rig.recorder.want(True, False)
    for rig in rigs:
        wait(lambda rig=rig: rig.recorder.pids, "the process")
        rig.play(5)
    first = rigs[0].path
    rigs[0].recorder.want(False, False)
    wait(lambda: rigs[0].path == "", "off")
    rigs[0].recorder.want(True, False)
    wait(lambda: rigs[0].path not in ("", first), "on again")
    rigs[0].play(5)
    for rig in rigs:
        rig.recorder.close()
    assert [rig.troubles for rig in rigs] == [[], []]
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [f"Tidecast 2026-11-29 20-00-00{n}.mp4" for n in (" 1", " 2", "")]
    assert [len(frames_of(path)) for path in files] == [5, 5, 5]


def test_many_at_once_never_get_the_same_name(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: takes.reserve(tmp_path, "take", ".mp4"), range(64)))
    assert len(set(paths)) == 64 == len(list(tmp_path.iterdir()))


@pytest.mark.skipif(
    sys.platform == "win32" or not Path("/dev/full").exists(), reason="a device of Linux that is always full"
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no device that is always full")
def test_a_disk_that_fills_up_ends_the_recording_and_says_so(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full.mp4"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(record, "reserve", lambda folder, stem, suffix: full)
    rig.recorder.want(True, False)
    wait(lambda: rig.recorder.pids, "the process")

    def reported() -> bool:
        rig.play(3)
        return bool(rig.troubles)

    wait(reported, "the report")
    assert "o space left on device" in rig.troubles[0]
    wait(lambda: rig.path == "", "the reading of no file")
    rig.play(3)  # the show goes on
    assert len(rig.troubles) == 1 and rig.recorder.pids == {}


def test_a_recording_whose_process_cannot_start_leaves_no_file(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start)
    rig.recorder.want(True, False)
    wait(lambda: rig.troubles, "the report")
    assert "could not be started: no memory." in rig.troubles[0]
    wait(lambda: not any((tmp_path / "takes").iterdir()), "the end of the empty file")


def test_empty_files_of_recordings_that_were_killed_are_removed_and_no_others(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "takes"
    folder.mkdir()
    old = time.time() - takes.LEFT_BEHIND_S - 60
    kept = {"Tidecast 2026-11-29 20-00-01.mp4": b"video", "holiday.mp4": b""}
    for name, content in {"Tidecast 2026-11-29 20-00-00.mp4": b"", **kept}.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (old, old))
    (folder / "Tidecast 2026-11-29 20-00-02.mp4").write_bytes(b"")  # another program's, just begun
    rig.recorder.want(True, False)
    wait(lambda: rig.path, "the new file")
    names = {path.name for path in folder.iterdir()} - {Path(rig.path).name}
    assert names == {*kept, "Tidecast 2026-11-29 20-00-02.mp4"}
