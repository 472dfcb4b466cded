"""A service survives what its loop raises, says it once, and stops as often as it is told to."""

from __future__ import annotations

import threading

from bridge.service import Service


def test_a_loop_that_raises_is_said_once_and_begun_again() -> None:
    tries, third = [], threading.Event()
    told: list[tuple[str, str]] = []

    def loop() -> None:
        tries.append(threading.current_thread().name)
        if len(tries) < 3:
            raise RuntimeError("broken")
        third.set()
        service.stopping.wait()

    service = Service("toy", loop, lambda topic, text: told.append((topic, text)))
    service.start()
    service.start()
    assert third.wait(5.0)
    service.stop()
    service.stop()
    assert tries == ["toy"] * 3
    assert told == [("toy", "RuntimeError: broken")]


def test_a_service_starts_again_after_a_stop() -> None:
    count = []
    service = Service("toy", lambda: count.append(1))
    for _ in range(2):
        service.start()
        service.stop()
    assert len(count) == 2


def test_stop_on_its_own_thread_does_not_wait_for_itself() -> None:
    service = Service("toy", lambda: service.stop())
    service.start()
    service.stop()
