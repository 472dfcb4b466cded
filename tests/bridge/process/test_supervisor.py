"""How the supervisor keeps an engine alive, with real processes; pictures and the rest of the bridge stay out of it.

What the audience sees of these faults: `tests/bridge/drills/test_faults.py`.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pytest

from bridge.config import EngineProcessConfig
from bridge.ipc import child_process
from bridge.process import messages, supervisor, worker
from bridge.process.engine.rings import INBOX_DEPTH
from bridge.process.heartbeat import Heartbeat
from bridge.process.supervisor import EngineState, Supervisor
from bridge.process.watchdog import Watchdog
from engine.config import Config
from engine.controls import Controls
from engine.errors import CaptureError
from engine.frame import Frame
from engine.planning.simulate import INPUT_FRAMES

WAIT_S = 60.0
HANG_S = 2.0
"""Silence that counts as a hang, where a test waits for one."""

LONG = "x" * 20_000
"""A prompt of which a few fill the pipe."""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process by a signal")


def test_the_simulated_schedule_has_the_input_ring_of_the_bridge() -> None:
    assert INPUT_FRAMES == INBOX_DEPTH


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(what)
        time.sleep(0.01)


class Show:
    """A supervisor with an identity engine, and what it told.

    Args:
        moving: whether a fader moves all the time: every look at the controls finds new ones.
        limits: of `EngineProcessConfig`.
    """

    def __init__(self, moving: bool = False, **limits: float) -> None:
        self.told: list[messages.EngineEvent] = []
        self.moving = moving
        self.looks = 0
        process = EngineProcessConfig(kind="identity", debug=True, backoff_seconds=0.0, **limits)
        self.supervisor = Supervisor(Config(width=64, height=64), process, 0.0, self._controls, self._tell)

    def _controls(self) -> Controls:
        self.looks += self.moving
        return Controls(prompt_1=f"{self.looks} {LONG}") if self.moving else STILL

    def _tell(self, event: messages.EngineEvent) -> None:
        self.told.append(event)

    def ready(self, times: int = 1) -> int:
        """Wait until an engine has become ready for the given time; returns its process id."""
        until(lambda: self.of(messages.Ready)[times - 1 :], f"no engine was ready {times} times: {self.told[-3:]}")
        return self.supervisor.process_id

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    def reasons(self) -> list[str]:
        return [event.reason for event in self.of(messages.Restarting)]

    def passes_frames(self) -> None:
        """Feed frames until one comes back."""
        frame = Frame(np.zeros((64, 64, 3), np.uint8), captured_ns=1, seq=len(self.told))
        self.supervisor.from_engine.skip()

        def came() -> bool:
            self.supervisor.feed(frame)
            return self.supervisor.from_engine.get(0.05) is not None

        until(came, "no frame came back")


STILL = Controls()


@pytest.fixture
def start() -> Iterator[Callable[..., Show]]:
    shows: list[Show] = []

    def begin(*args: Any, **kwargs: Any) -> Show:
        shows.append(Show(*args, **kwargs))
        shows[-1].supervisor.start()
        return shows[-1]

    yield begin
    for show in shows:
        show.supervisor.stop()
        assert show.supervisor.state is EngineState.STOPPED


def test_a_change_that_is_told_is_sent_at_once_each_once_and_a_flood_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watch, which would send it some time later, does not run here."""
    show, posted = Show(), list[Any]()
    show.supervisor._engine = cast(Any, SimpleNamespace(channel=SimpleNamespace(post=posted.append)))
    monkeypatch.setattr(supervisor, "POST_S", 0.0)
    show.supervisor.controls_changed()
    show.supervisor.controls_changed()
    assert posted == [messages.ControlsChanged(STILL)]
    monkeypatch.setattr(supervisor, "POST_S", 60.0)
    monkeypatch.setattr(sys.modules[__name__], "STILL", Controls(strength=0.25))
    show.supervisor.controls_changed()
    assert len(posted) == 1, "the watch sends it"
    show.supervisor._post_controls()
    assert posted[1:] == [messages.ControlsChanged(Controls(strength=0.25))]


@posix_only
def test_an_engine_that_is_frozen_while_a_fader_moves_is_replaced(start: Callable[..., Show]) -> None:
    """On a busy machine an engine may also count as hung by itself: only what follows the freeze is looked at."""
    show = start(moving=True, hang_seconds=HANG_S)
    for _ in range(2):
        until(lambda: show.supervisor.state is EngineState.RUNNING, "no engine runs")
        told, frozen = len(show.reasons()), show.supervisor.process_id
        os.kill(frozen, signal.SIGSTOP)
        until(lambda told=told: len(show.reasons()) > told, "the hang was not noticed")
        assert "no sign of life" in show.reasons()[told]
        assert not psutil.pid_exists(frozen)
    show.passes_frames()


@posix_only
def test_stopping_waits_neither_for_a_frozen_engine_nor_for_a_full_pipe(start: Callable[..., Show]) -> None:
    show = start(moving=True, hang_seconds=600.0)
    frozen = show.ready()
    os.kill(frozen, signal.SIGSTOP)
    looks = show.looks
    until(lambda: show.looks > looks + 20, "the supervisor waits for the engine")  # 20 times 20 kB: a pipe holds 64
    began = time.monotonic()
    show.supervisor.stop()
    assert time.monotonic() - began < supervisor.STOP_S + child_process.KILL_S
    assert not psutil.pid_exists(frozen)


def test_an_engine_that_is_killed_while_a_fader_moves_is_replaced_every_time(start: Callable[..., Show]) -> None:
    show = start(moving=True)
    for times in range(1, 5):
        psutil.Process(show.ready(times)).kill()
        until(lambda times=times: len(show.reasons()) == times, "the death was not noticed")
        assert show.reasons()[-1].startswith("The engine process ended by itself")
    show.ready(5)
    show.passes_frames()


def test_an_engine_that_raises_tells_why_before_it_is_replaced(start: Callable[..., Show]) -> None:
    show = start()
    show.ready()
    show.supervisor.inject("error")
    show.ready(2)
    assert show.reasons() == ["RuntimeError: drill"]


def test_every_failed_start_is_followed_by_a_longer_wait_up_to_a_limit(start: Callable[..., Show], monkeypatch) -> None:
    monkeypatch.setattr(Supervisor, "_run_process", lambda self: "drill")
    show = start(backoff_max_seconds=0.3)
    until(lambda: len(show.reasons()) >= 4, "the failed starts were not told")
    waits_s = [event.retry_s for event in show.of(messages.Restarting)]
    assert waits_s[:4] == pytest.approx([0.0, 0.1, 0.3, 0.3])


@posix_only
def test_a_bridge_that_was_paused_itself_keeps_its_engine(start: Callable[..., Show], monkeypatch) -> None:
    jump_s = [0.0]
    clock = functools.partial(Watchdog, clock=lambda: time.monotonic() + jump_s[0])
    monkeypatch.setattr(supervisor, "Watchdog", clock)
    show = start(hang_seconds=30.0)
    pid = show.ready()
    os.kill(pid, signal.SIGSTOP)
    jump_s[0] = 3600.0
    time.sleep(0.5)
    os.kill(pid, signal.SIGCONT)
    show.passes_frames()
    assert show.supervisor.process_id == pid and show.reasons() == []


@posix_only
def test_without_descriptors_the_start_fails_is_told_and_tried_again(start: Callable[..., Show]) -> None:
    import resource

    show = start()
    pid = show.ready()
    show.passes_frames()
    held = [os.open(os.devnull, os.O_RDONLY)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 32, limits[1]))
        with pytest.raises(OSError) as full:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        assert full.value.errno == errno.EMFILE
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(show.reasons()) >= 3, "the failed starts were not told")
        assert show.supervisor.state in (EngineState.FAILED, EngineState.LOADING)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)
    assert "signal 9" in show.reasons()[0]
    assert "could not be started" in show.reasons()[1] and "Too many open files" in show.reasons()[1]
    show.ready(2)
    show.passes_frames()
    assert show.supervisor.restarts >= 3


def test_without_threads_the_process_is_ended_and_the_start_tried_again(
    start: Callable[..., Show], monkeypatch
) -> None:
    pids, begin = [], threading.Thread.start

    def no_thread(self: threading.Thread) -> None:
        if self.name == "engine-receive" and len(pids) < 2:
            pids.append(show.supervisor)
            raise RuntimeError("can't start new thread")
        begin(self)

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    show = Show()
    before = {process.pid for process in psutil.Process().children()}
    show.supervisor.start()
    try:
        pid = show.ready()
        assert [reason for reason in show.reasons() if "can't start new thread" in reason] == show.reasons()
        assert len(show.reasons()) == 2
        engines = {process.pid for process in psutil.Process().children()} - before
        assert pid in engines and len(engines) <= 2  # the other may be the resource tracker
    finally:
        show.supervisor.stop()


def test_an_engine_that_cannot_be_killed_is_left_behind(start: Callable[..., Show], monkeypatch) -> None:
    """As one is that waits inside a driver that hangs."""
    monkeypatch.setattr(child_process, "KILL_S", 0.2)
    show = start(hang_seconds=HANG_S)
    stuck = show.ready()
    process = psutil.Process(stuck)
    process.suspend()
    kill = child_process.SPAWN.Process.kill
    monkeypatch.setattr("multiprocessing.process.BaseProcess.kill", lambda self: self.pid == stuck or kill(self))
    try:
        show.ready(2)
        show.passes_frames()
        assert f"{stuck} cannot be killed" in show.of(messages.Complaint)[0].reason
    finally:
        process.kill()


def test_who_is_told_and_raises_does_not_end_the_watch(start: Callable[..., Show], monkeypatch) -> None:
    def tell(self: Show, event: messages.EngineEvent) -> None:
        self.told.append(event)
        raise ValueError("the listener broke")

    monkeypatch.setattr(Show, "_tell", tell)
    show = start()
    psutil.Process(show.ready()).kill()
    show.ready(2)
    show.passes_frames()
    assert any("the listener broke" in complaint.reason for complaint in show.of(messages.Complaint))


def test_after_a_failed_capture_the_next_engine_captures_nothing_and_that_is_said() -> None:
    show = Show()
    watched = show.supervisor
    assert watched._config.compile == "auto"
    watched._handle(messages.Failed("It ran out of memory."))
    assert watched._config.compile == "auto", "other failures change nothing"
    watched._handle(messages.Failed("The decode cannot be captured.", captures=False))
    assert watched._config.compile == "off"
    assert "cannot be captured. It starts again without CUDA graphs" in watched._failure
    watched.stop()


def test_a_worker_whose_capture_failed_ends_and_asks_for_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def refused(*_: object) -> object:
        raise CaptureError("The decode cannot be captured: no memory.")

    class Parent:
        def __init__(self, *_: object) -> None:
            self.tell = told.append

    for name, fake in {
        "Parent": Parent,
        "open_session": refused,
        "leave_to_parent": lambda end: None,
        "fine_timers": lambda: None,
    }.items():
        monkeypatch.setattr(worker, name, fake)
    monkeypatch.setattr(worker.os, "_exit", lambda code: told.append(code))
    start = messages.Start(Config(), False, False, 0.0, Controls())
    worker.main(start, None, None, None, Heartbeat())  # type: ignore[arg-type]
    assert told == [messages.Failed("The decode cannot be captured: no memory.", captures=False), 1]
