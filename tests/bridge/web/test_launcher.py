"""The web process as the bridge sees it: its token, a port that is taken, and what it keeps out of the bridge."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from bridge.ipc import child_process
from bridge.web import launcher, server_process
from bridge.web.launcher import WebProcess
from engine.errors import PortInUseError
from tests.support.browser import wait
from tests.support.web_stage import SIZE, Stage

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def test_a_new_token_each_time_unless_given() -> None:
    tokens = set()
    for _ in range(2):
        with Stage(host="0.0.0.0") as stage:
            tokens.add(stage.web.token)
    assert len(tokens) == 2 and all(len(t) >= 16 for t in tokens)


def test_a_taken_port_is_named() -> None:
    with Stage() as stage:
        second = WebProcess(stage.store, stage.telemetry, *SIZE, port=stage.web.port)
        with pytest.raises(PortInUseError, match=str(stage.web.port)):
            second.start()
        second.stop()


def test_the_web_framework_stays_out_of_the_bridge_process() -> None:
    code = "import sys, bridge.web.launcher; print(sorted({'starlette', 'uvicorn', 'PIL', 'torch'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def answers(stage: Stage) -> bool:
    try:
        return httpx.get(stage.web.url + "api/state", trust_env=False, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def reported(stage: Stage) -> list[str]:
    """The list grows with every error that is reported under "web"."""
    texts: list[str] = []
    stage.telemetry.listen_errors(lambda topic, reason: texts.append(reason) if topic == "web" else None)
    return texts


@POSIX
def test_a_frozen_web_process_is_replaced_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "HANG_S", 3.0)
    with Stage() as stage:
        texts = reported(stage)
        frozen = stage.web.pid
        os.kill(frozen, signal.SIGSTOP)
        try:
            stage.store.set("prompt_2", "x" * 20_000)
            longest = 0.0
            for number in range(2000):  # far more than the pipe holds, with the long prompt every time
                began = time.monotonic()
                stage.store.set("prompt_2", f"{number}" + "x" * 20_000)
                longest = max(longest, time.monotonic() - began)
                time.sleep(0.001)
            assert longest < 0.5
            wait(lambda: stage.web.pid not in (0, frozen), "another process")
            wait(lambda: answers(stage), "the page")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(frozen, signal.SIGCONT)
        assert any("no sign of life" in text and "comes back by itself" in text for text in texts)
        state = httpx.get(stage.web.url + "api/state", trust_env=False).json()
        assert state["controls"]["prompt_2"][0].startswith("1999x")


@POSIX
def test_a_show_ends_although_the_web_process_is_frozen() -> None:
    with Stage() as stage:
        os.kill(stage.web.pid, signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < server_process.STOP_S + child_process.KILL_S


@POSIX
def test_a_web_process_that_cannot_be_started_is_tried_again() -> None:
    """No descriptor is left."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Stage() as stage:
        texts = reported(stage)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            os.kill(stage.web.pid, signal.SIGKILL)
            wait(lambda: sum("Too many open files" in text for text in texts) >= 2, "two failed starts")
            assert stage.web.pid == 0
            stage.store.set("strength", 0.25)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        wait(lambda: answers(stage), "the page")
        state = httpx.get(stage.web.url + "api/state", trust_env=False).json()
        assert state["controls"]["strength"][0] == 0.25


def test_a_show_starts_although_the_web_process_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(launcher, "START_WAIT_S", 0.2)
    real = launcher.ServerProcess
    monkeypatch.setattr(launcher, "ServerProcess", fails)
    with Stage() as stage:
        assert stage.web.pid == 0
        monkeypatch.setattr(launcher, "ServerProcess", real)
        wait(lambda: answers(stage), "the page")


def test_a_message_that_raises_is_reported_and_the_page_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a system call too, which was taken for the end of the web process."""

    def fails(*args: Any, **options: Any) -> None:
        monkeypatch.undo()
        raise OSError(errno.ENOSPC, "No space left on device")

    with Stage() as stage:
        texts: list[str] = []
        stage.telemetry.listen_errors(lambda topic, reason: texts.append(reason))
        monkeypatch.setattr(stage.store, "handle", fails)
        pid = stage.web.pid
        said = {"address": "/tidecast/anchor", "args": []}
        assert httpx.post(stage.web.url + "api/send", json=said, trust_env=False).status_code == 202
        wait(lambda: any("No space left" in text for text in texts), "the report")
        httpx.post(stage.web.url + "api/set", json={"strength": 0.125}, trust_env=False)
        wait(lambda: stage.store.snapshot.value("strength") == 0.125, "the next message")
        assert stage.web.pid == pid
