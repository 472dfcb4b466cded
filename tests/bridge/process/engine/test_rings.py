"""The frame rings are exchanged for others of another size while frames are put and taken."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from bridge.process.engine import rings
from bridge.process.engine.rings import INBOX_DEPTH, EngineRings
from engine.errors import SharedMemoryError
from engine.frame import Frame


def frame(width: int, height: int, number: int = 0) -> Frame:
    return Frame(np.full((height, width, 3), number % 256, np.uint8), captured_ns=number, seq=number)


def test_what_waited_is_gone_and_what_has_the_old_size_is_dropped_and_counted() -> None:
    used = EngineRings(64, 48)
    try:
        for number in range(INBOX_DEPTH + 3):
            assert used.put(frame(64, 48, number))
        assert used.dropped == 3
        used.exchange(96, 64)
        assert used.size == (96, 64) and used.dropped == 3
        assert not used.put(frame(64, 48)) and used.dropped == 4
        assert used.put(frame(96, 64, 7))
        with used.pair.inbox.reader() as reader, used.pair.outbox.writer() as writer:
            got = reader.get(1.0)
            assert got is not None and (got.width, got.height, got.seq) == (96, 64, 7)
            writer.put(got)
            back = used.get(1.0)
            assert back is not None and back.seq == 7 and used.queued_ns > 0
    finally:
        used.close()


def test_without_memory_for_the_new_size_the_old_rings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    used, real = EngineRings(64, 48), rings.FrameRing

    def full(width: int, height: int, depth: int) -> rings.FrameRing:
        if width > 64:
            raise SharedMemoryError("There is no memory left.")
        return real(width, height, depth)

    monkeypatch.setattr(rings, "FrameRing", full)
    try:
        with pytest.raises(SharedMemoryError):
            used.exchange(4096, 4096)
        assert used.size == (64, 48) and used.put(frame(64, 48))
    finally:
        used.close()


def test_threads_that_put_and_take_meet_no_ring_that_is_closed() -> None:
    used, stopping, failures = EngineRings(64, 48), threading.Event(), []

    def work(step: object) -> None:
        while not stopping.is_set():
            try:
                step()  # type: ignore[operator]
            except Exception as error:
                failures.append(error)
                return

    threads = [
        threading.Thread(target=work, args=(step,))
        for step in (lambda: used.put(frame(*used.size)), used.get, used.skip, lambda: used.dropped)
    ]
    for thread in threads:
        thread.start()
    for number in range(60):
        used.exchange(64 + 16 * (number % 3), 48)
    stopping.set()
    for thread in threads:
        thread.join()
    used.close()
    assert failures == []
