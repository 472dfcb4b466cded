"""A service goes on after its loop raises, reports the defect once, and can be stopped more than once."""

from __future__ import annotations

import threading

import pytest

from bridge.service import Service


def test_a_loop_that_raises_is_reported_once_and_run_again() -> None:
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
    assert third.wait(60.0)
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


def test_stop_wakes_a_loop_that_waits_for_something_else() -> None:
    change, begun = threading.Condition(), threading.Event()

    def loop() -> None:
        with change:
            begun.set()
            change.wait_for(service.stopping.is_set)

    def wake() -> None:
        with change:
            change.notify()

    service = Service("toy", loop, wake=wake)
    service.start()
    assert begun.wait(60.0)
    service.stop(5.0)
    assert "toy" not in {thread.name for thread in threading.enumerate()}


def test_a_loop_runs_at_least_once_even_when_it_is_stopped_immediately() -> None:
    for _ in range(50):
        ended: list[int] = []
        service = Service("toy", lambda ended=ended: ended.append(1))
        service.start()
        service.stop()
        assert ended == [1]


def test_a_defect_whose_text_changes_does_not_flood_the_log() -> None:
    told: list[str] = []
    service = Service("toy", tell=lambda topic, text: told.append(text))
    for number in range(100):
        service.report_defect(ValueError(str(number)))
    assert told == ["ValueError: 0"]


class Panic(BaseException):
    """As libraries in Rust raise it: no `Exception`."""


@pytest.mark.parametrize("error", [Panic("rust"), MemoryError(), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_a_loop_survives_whatever_is_raised_and_a_listener_that_raises_too(error: BaseException) -> None:
    failures, goes_on = [error, error], threading.Event()

    def loop() -> None:
        if failures:
            raise failures.pop()
        goes_on.set()

    def tell(topic: str, text: str) -> None:
        raise ValueError("the listener broke")

    service = Service("toy", loop, tell)
    service.start()
    assert goes_on.wait(60.0)
    assert service.stop()


def test_stop_says_whether_the_thread_has_ended() -> None:
    release = threading.Event()
    service = Service("toy", lambda: release.wait() and None)
    service.start()
    assert not service.stop(0.01)
    release.set()
    assert service.stop(5.0)
    assert service.stop()


def test_a_service_whose_thread_cannot_be_started_can_be_stopped_and_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ran = threading.Event()
    service = Service("toy", ran.set)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            service.start()
    assert service.stop()
    service.start()
    assert ran.wait(60.0)
    assert service.stop()
