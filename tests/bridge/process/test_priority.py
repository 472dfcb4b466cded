"""What the program asks of Windows for the threads that carry frames; on Windows, whether it got it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bridge import app
from bridge.bench.overhead import identity
from bridge.cli import doctor, main
from bridge.config_file import load
from bridge.process import priority, worker
from bridge.process.messages import Start
from bridge.process.priority import (
    HIGHEST,
    THIS_THREAD,
    fine_timers,
    keep_objects,
    raise_thread_priority,
    refuse_power_saving,
)
from engine import session
from engine.config import Config
from engine.controls import Controls


class Kernel:
    """A stand-in for kernel32 that knows some of the bits of a power throttling state."""

    def __init__(self, known: int) -> None:
        self.known = known
        self.asked: list[tuple[int, ...]] = []

    def SetProcessInformation(self, process: Any, kind: int, state: Any, size: Any) -> int:
        version, control, wanted = ctypes.cast(state, ctypes.POINTER(ctypes.c_uint32 * 3)).contents
        self.asked.append((process.value, kind, version, control, wanted, size.value))
        return int(not control & ~self.known)


@pytest.mark.parametrize("known, asks, obeyed", [(0x5, [0x5], True), (0x1, [0x5, 0x1], True), (0, [0x5, 0x1], False)])
def test_power_saving_is_refused_as_far_as_windows_can(known: int, asks: list[int], obeyed: bool) -> None:
    kernel = Kernel(known)
    assert refuse_power_saving(kernel) is obeyed
    this_process = ctypes.c_void_p(-1).value
    assert kernel.asked == [(this_process, 4, 1, control, 0, 12) for control in asks]


def test_the_session_precedes_others_while_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "SESSION", tmp_path / "autogroup")
    with priority.raised_session() as raised:  # a kernel without sessions
        assert not raised
    priority.SESSION.write_text("/autogroup-17 nice 3\n")
    with pytest.raises(KeyError), priority.raised_session() as raised:
        assert raised and priority.SESSION.read_text() == "-10"
        raise KeyError
    assert priority.SESSION.read_text() == "3"


@pytest.mark.skipif(not priority.SESSION.exists(), reason="about Linux, where it shares the processor by sessions")
def test_linux_gives_the_session_its_priority_where_it_may() -> None:
    """In a session of its own, so that this one stays as it is."""
    program = """
from bridge.process import priority
with priority.raised_session() as raised:
    print(raised, priority.SESSION.read_text().split()[-1])
print(priority.SESSION.read_text().split()[-1])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, start_new_session=True)
    assert run.stdout.split() in (["True", "-10", "0"], ["False", "0", "0"]), run.stderr


def test_the_session_is_raised_once_the_engine_runs_and_not_while_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    started, states = main._started, []

    def bridge_of(*args: Any) -> app.App:
        bridge = started(*args)

        @contextlib.contextmanager
        def raised_session() -> Iterator[bool]:
            states.append(str(bridge.supervisor.state))
            bridge.quit.set()
            yield True

        monkeypatch.setattr(main, "raised_session", raised_session)
        return bridge

    monkeypatch.setattr(main, "_started", bridge_of)
    monkeypatch.setattr(main, "start_logging", lambda live: None)
    quiet = {"osc.enabled": False, "web.enabled": False}
    main.serve(load(None, identity("pattern:bars", "null:", 64, 48) | quiet), plain=True, seconds=120.0)
    assert states == ["running"]


@pytest.mark.parametrize("raised, by_session, level", [(True, True, "ok"), (False, False, "ok"), (False, True, "note")])
def test_doctor_says_when_other_programs_can_hold_up_the_picture(
    raised: bool, by_session: bool, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(doctor, "raised_session", lambda: contextlib.nullcontext(raised))
    monkeypatch.setattr(doctor, "scheduled_by_session", lambda: by_session)
    (finding,) = doctor._scheduling()
    assert finding.level == level and bool(finding.remedy) is (level == "note")


@pytest.mark.skipif(sys.platform != "win32", reason="about Windows")
def test_windows_gives_the_priority_and_the_timers() -> None:
    got: list[int] = []

    def look() -> None:
        raise_thread_priority()
        if sys.platform == "win32":
            got.append(ctypes.windll.kernel32.GetThreadPriority(ctypes.c_void_p(THIS_THREAD)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert got == [HIGHEST]
    fine_timers()
    coarsest, finest, now = ctypes.c_uint32(), ctypes.c_uint32(), ctypes.c_uint32()
    if sys.platform == "win32":
        ctypes.windll.ntdll.NtQueryTimerResolution(*(ctypes.byref(value) for value in (coarsest, finest, now)))
    assert now.value <= 10_000, "1 ms in units of 100 ns"


def test_the_bridge_and_the_engine_keep_their_objects_from_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the picture runs, so that no collection of all of them holds its threads."""
    kept: list[str] = []
    monkeypatch.setattr(priority, "keep_objects", lambda: kept.append("bridge"))
    monkeypatch.setattr(worker, "keep_objects", lambda: kept.append("engine"))
    monkeypatch.setattr(app.App, "start", lambda self: kept.append("start"))
    main._started(load(None, {"output.uri": "null:"}), fall_back=False)
    monkeypatch.setattr(session.Session, "open", lambda *args, **options: contextlib.nullcontext("session"))
    start = Start(Config(), False, False, 0.0, Controls())
    with worker.open_session(start, mock.Mock(), mock.Mock()) as opened:
        assert opened == "session"
        assert kept == ["bridge", "start", "engine"]


def test_objects_that_are_kept_are_not_collected() -> None:
    many = [[number] for number in range(1000)]
    before = gc.get_freeze_count()
    keep_objects()
    kept = gc.get_freeze_count() - before
    assert kept > len(many)
    assert not {id(found) for found in gc.get_objects()} & {id(one) for one in many}
