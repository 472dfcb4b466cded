"""Frames between processes: order, dropping the oldest, waiting, and the ring after a process was killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import groupby
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest

from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from bridge.ipc.memory_barrier import MemoryBarrier
from bridge.ipc.ring_memory import AT
from engine.frame import Frame, PixelFormat

SPAWN = multiprocessing.get_context("spawn")
WIDTH, HEIGHT = 64, 48

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def frame(number: int, width: int = WIDTH, height: int = HEIGHT, **metadata: str) -> Frame:
    pixels = np.full((height, width, 3), number % 251, np.uint8)
    return Frame(pixels, PixelFormat.RGB, number * 1000, number * 1000 + 7, number, metadata)


def whole(got: Frame) -> bool:
    """Whether every pixel belongs to the frame that the header names."""
    return bool((got.pixels == got.seq % 251).all())


def echo(inbox: RingReader, outbox: RingWriter) -> None:
    while True:
        try:
            got = inbox.get(5.0)
        except EOFError:
            return
        if got is not None:
            outbox.put(got)


def flood(outbox: RingWriter, count: int, width: int, height: int) -> None:
    for number in range(count):
        outbox.put(frame(number, width, height))


def flood_for_ever(outbox: RingWriter, width: int, height: int) -> None:
    number = 0
    while True:
        outbox.put(frame(number, width, height))
        number += 1


@pytest.fixture
def ring():
    with FrameRing(WIDTH, HEIGHT, depth=3) as made:
        yield made


def test_a_frame_arrives_with_its_times_and_metadata(ring):
    writer, reader = ring.writer(), ring.reader()
    sent = frame(5, controls='{"prompt_1": "näive"}')
    assert writer.put(sent) is True
    got = reader.get()
    assert got is not None
    np.testing.assert_array_equal(got.pixels, sent.pixels)
    assert (got.pts_ns, got.captured_ns, got.seq) == (5000, 5007, 5)
    assert json.loads(got.metadata["controls"]) == {"prompt_1": "näive"}
    assert 0 < reader.queued_ns <= time.monotonic_ns()
    assert reader.get() is None


def test_a_full_ring_drops_the_oldest_and_counts(ring):
    writer, reader = ring.writer(), ring.reader()
    for number in range(10):
        writer.put(frame(number))
    assert (writer.dropped, writer.pending, writer.written) == (7, 3, 10)
    assert [reader.get().seq for _ in range(3)] == [7, 8, 9]
    assert (reader.dropped, reader.pending) == (7, 0)


def test_newest_skips_and_counts(ring):
    writer, reader = ring.writer(), ring.reader()
    for number in range(3):
        writer.put(frame(number))
    assert reader.get(newest=True).seq == 2
    assert reader.get(newest=True) is None
    assert reader.dropped == 2


def test_skip_drops_what_waits(ring):
    writer, reader = ring.writer(), ring.reader()
    for number in range(5):
        writer.put(frame(number))
    assert reader.skip() == 3
    assert reader.get() is None
    writer.put(frame(9))
    assert reader.get().seq == 9
    assert reader.dropped == 5


def test_pixels_can_be_taken_into_given_memory(ring):
    writer, reader = ring.writer(), ring.reader()
    memory = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    writer.put(frame(3))
    assert reader.get(into=memory).pixels is memory
    assert (memory == 3).all()


@pytest.mark.parametrize(
    "bad",
    [
        frame(0, WIDTH + 2),
        Frame(np.zeros((HEIGHT, WIDTH, 4), np.uint8), PixelFormat.RGBA),
        frame(0, note="x" * 5000),
    ],
    ids=["size", "format", "metadata"],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(ring, bad):
    writer = ring.writer()
    with pytest.raises(ValueError, match="ring"):
        writer.put(bad)
    assert writer.written == 0


def test_waiting_sleeps_until_the_frame_comes(ring):
    writer, reader = ring.writer(), ring.reader()
    before = time.thread_time()
    timer = threading.Timer(0.3, writer.put, [frame(1)])
    timer.start()
    got = reader.get(30.0)
    assert got is not None and got.seq == 1
    assert time.thread_time() - before < 0.1  # of 0.3 s: it did not spin
    timer.join()
    started = time.monotonic()
    assert reader.get(0.1) is None
    assert time.monotonic() - started >= 0.1


def test_a_frame_and_a_message_can_be_waited_for_together(ring):
    writer, reader = ring.writer(), ring.reader()
    ours, theirs = SPAWN.Pipe()
    assert wait([reader.waitable, theirs], 0.0) == []
    writer.put(frame(1))
    assert wait([reader.waitable, theirs], 5.0) == [reader.waitable]
    assert reader.get(0.0).seq == 1
    ours.close(), theirs.close()


def test_stale_wake_ups_do_not_end_the_wait(ring):
    writer, reader = ring.writer(), ring.reader()
    for number in range(3):
        writer.put(frame(number))
    for _ in range(3):
        assert reader.get() is not None
    timer = threading.Timer(0.2, writer.put, [frame(9)])
    timer.start()
    assert reader.get(30.0).seq == 9
    timer.join()


class Recorded(list):
    """A slot's header that notes who reads and writes its two numbers."""

    def __init__(self, header: np.ndarray, steps: list[str]) -> None:
        super().__init__(header.tolist())
        self.steps = steps

    def __setitem__(self, index, value) -> None:
        self.steps.append({AT.BEGIN: "begin", AT.END: "end"}.get(index, "frame"))
        super().__setitem__(index, value)

    def __getitem__(self, index):
        self.steps.append({AT.BEGIN: "begin", AT.END: "end"}.get(index if isinstance(index, int) else -1, "frame"))
        got = super().__getitem__(index)
        return np.array(got) if isinstance(index, slice) else got


def test_barriers_stand_between_the_numbers_and_the_frame_at_both_ends(ring, monkeypatch):
    steps: list[str] = []
    writer, reader = ring.writer(), ring.reader()
    copy = np.copyto

    def noted(*args) -> None:
        steps.append("frame")
        copy(*args)

    monkeypatch.setattr("bridge.ipc.ring_ends.np.copyto", noted)
    monkeypatch.setattr(MemoryBarrier, "__call__", lambda self: steps.append("barrier"))
    shared = Recorded(writer._open().headers[0], steps)
    writer._open().headers[0] = reader._open().headers[0] = shared
    writer.put(frame(7, note="x"))
    assert [step for step, _ in groupby(steps)] == ["begin", "barrier", "frame", "barrier", "end"]
    steps.clear()
    assert reader.get().seq == 7
    assert [step for step, _ in groupby(steps)] == ["begin", "end", "barrier", "frame", "barrier", "begin"]


def test_a_barrier_takes_its_lock_again_after_it_has_released_it(monkeypatch):
    """A release followed by an acquisition orders everything around it; an acquisition alone does not."""
    calls: list[str] = []

    class Lock:
        def __enter__(self) -> None:
            calls.append("acquire")

        def __exit__(self, *exc) -> None:
            calls.append("release")

    monkeypatch.setattr("bridge.ipc.memory_barrier.threading.Lock", Lock)
    MemoryBarrier()()
    assert calls[calls.index("release") :] == ["release", "acquire", "release"]


def test_put_never_blocks_when_nobody_reads(ring):
    writer = ring.writer()
    for number in range(3000):  # far beyond the socket's buffer
        assert writer.put(frame(number)) is True
    assert ring.reader().get().seq == 2997


def test_both_ends_in_other_processes():
    with FrameRing(WIDTH, HEIGHT, depth=16) as there, FrameRing(WIDTH, HEIGHT, depth=16) as back:
        process = SPAWN.Process(target=echo, args=(there.reader(), back.writer()), daemon=True)
        process.start()
        writer, reader = there.writer(), back.reader()
        for number in range(50):
            writer.put(frame(number, n=str(number)))
            got = reader.get(30.0)
            assert got is not None and got.seq == number and got.metadata == {"n": str(number)} and whole(got)
        writer.close()
        there.close()  # the last writing end: the child sees the end of the ring and returns
        process.join(60.0)
        assert process.exitcode == 0


def test_a_slow_reader_never_sees_a_torn_frame():
    width, height = 512, 384
    with FrameRing(width, height, depth=1) as ring:
        reader = ring.reader()
        process = SPAWN.Process(target=flood, args=(ring.writer(), 3000, width, height), daemon=True)
        process.start()
        last, count = -1, 0
        while last < 2999:
            got = reader.get(30.0)
            assert got is not None and got.seq > last and whole(got)
            last, count = got.seq, count + 1
        process.join(60.0)
        assert count + reader.dropped == 3000


def test_a_killed_writer_leaves_the_ring_usable():
    with FrameRing(WIDTH, HEIGHT, depth=3) as ring:
        reader = ring.reader()
        for _ in range(3):
            process = SPAWN.Process(target=flood_for_ever, args=(ring.writer(), WIDTH, HEIGHT), daemon=True)
            process.start()
            assert whole(reader.get(30.0))
            process.kill()
            process.join(60.0)
            while (got := reader.get(0.05)) is not None:
                assert whole(got)
        writer = ring.writer()
        writer.put(frame(77))
        assert reader.get(1.0).seq == 77


def test_a_killed_reader_hands_over_to_its_successor():
    with FrameRing(WIDTH, HEIGHT, depth=3) as there, FrameRing(WIDTH, HEIGHT, depth=3) as back:
        writer, reader = there.writer(), back.reader()
        for life in range(2):
            process = SPAWN.Process(target=echo, args=(there.reader(), back.writer()), daemon=True)
            process.start()
            writer.put(frame(life))
            assert reader.get(30.0).seq == life
            process.kill()
            process.join(60.0)
        for number in range(1000):
            assert writer.put(frame(number)) is True
        successor = there.reader()
        assert successor.get().seq == 997


def memory_held() -> int:
    """Handles and mappings of shared memory that this process has (on Linux)."""
    handles = [os.readlink(one) for one in Path("/proc/self/fd").glob("*") if one.is_symlink()]
    return len([one for one in (*handles, *Path("/proc/self/maps").read_text().splitlines()) if "tidecast" in one])


@linux
def test_the_memory_is_gone_after_close():
    held = memory_held()
    ring = FrameRing(WIDTH, HEIGHT)
    end = ring.writer()
    end.put(frame(1))
    ring.close()
    ring.close()
    end.close()
    end.close()
    assert memory_held() == held
    with pytest.raises(ValueError, match="closed"):
        end.put(frame(2))
    with pytest.raises(ValueError, match="closed"):
        ring.reader()


OWNER = """
import multiprocessing, os, re, signal, sys
from bridge.ipc.frame_ring import FrameRing
from tests.bridge.ipc.test_frame_ring import echo, frame
if __name__ == "__main__":
    there, back = FrameRing(64, 48), FrameRing(64, 48)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=echo, args=(there.reader(), back.writer()))
    process.start()
    writer, reader = there.writer(), back.reader()
    writer.put(frame(1))
    assert reader.get(30.0).seq == 1
    print(process.pid, *re.findall("/dev/shm/[^ ]+$", open("/proc/self/maps").read(), re.M), flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "group killed":
        os.killpg(0, signal.SIGKILL)
    writer.close(), there.close()  # what is not closed goes with the process
    process.join()
"""


@linux
@pytest.mark.parametrize("how", ["ended", "killed", "group killed"])
def test_nothing_is_left_and_nothing_complains_when_the_owner_goes(how, tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    done = subprocess.run(
        [sys.executable, str(script), how],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=os.getcwd(),
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        start_new_session=True,
    )
    assert done.returncode == (0 if how == "ended" else -signal.SIGKILL), done.stderr
    pid, *files = done.stdout.split()
    assert not files, "memory with a name: nobody removes it when the whole group is killed"
    deadline = time.monotonic() + 30.0
    while alive(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if how == "ended":
        assert done.stderr == ""
    else:
        assert "Traceback" not in done.stderr


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


@linux
def test_an_end_that_is_closed_while_a_thread_copies_keeps_its_memory_until_then():
    """As when a recording ends while a frame is written to it."""
    held = memory_held()
    with FrameRing(32, 16, depth=1) as ring:
        writer = ring.writer()
        writer.put(Frame(np.full((16, 32, 3), 7, np.uint8)))
        copied = writer._open().pixels[0]  # what a `put` in another thread holds meanwhile
        writer.close()
        assert (copied == 7).all()
        with pytest.raises(ValueError, match="closed"):
            writer.put(Frame(np.zeros((16, 32, 3), np.uint8)))
        del copied
    with FrameRing(32, 16) as other, other.reader() as reader:
        assert reader.get() is None
    assert memory_held() == held


def test_a_writer_that_another_thread_closes_during_a_put_ends_after_it(monkeypatch):
    with FrameRing(64, 64, depth=2) as ring, ring.reader() as reader:
        writer, copy = ring.writer(), np.copyto
        closer = threading.Thread(target=writer.close)

        def copy_slowly(*args) -> None:
            closer.start()
            closer.join(0.1)  # it would have closed by now if it did not wait
            copy(*args)

        with monkeypatch.context() as slow:
            slow.setattr("bridge.ipc.ring_ends.np.copyto", copy_slowly)
            assert writer.put(Frame(np.full((64, 64, 3), 9, np.uint8)))
        closer.join()
        assert (reader.get().pixels == 9).all()
        with pytest.raises(ValueError, match="closed"):
            writer.put(Frame(np.zeros((64, 64, 3), np.uint8)))
