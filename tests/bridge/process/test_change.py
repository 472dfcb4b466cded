"""Model and size are changed while the supervisor keeps an engine alive, with real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bridge.config import EngineProcessConfig
from bridge.process import messages
from bridge.process.engine import rings
from bridge.process.engine.choice import EngineChoice, Size
from bridge.process.supervisor import EngineState, Supervisor
from engine.config import Config
from engine.controls import Controls
from engine.errors import SharedMemoryError
from engine.frame import Frame

WAIT_S = 120.0
SMALL, LARGE = (64, 48), (96, 64)
IDENTITY = "identity"


def until(happened: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(what)
        time.sleep(0.01)


class Show:
    """A supervisor that begins with the identity at `SMALL`, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.told: list[messages.EngineEvent] = []
        self.controls = Controls(prompt_1="fire", steps=1, strength=0.7)
        config = Config(width=SMALL[0], height=SMALL[1], threads=1, warmup=False, device="cpu", weights_dir=str(folder))
        process = EngineProcessConfig(kind=IDENTITY, backoff_seconds=0.0)
        self.supervisor = Supervisor(config, process, 0.0, lambda: self.controls, self.told.append)
        self._number = 0

    def want(self, model: str, size: Size) -> None:
        self.supervisor.want(EngineChoice(model, size))

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    def models(self) -> list[str]:
        """Those that became ready, in order."""
        return [event.model for event in self.of(messages.Ready)]

    def returns(self, size: Size) -> Frame:
        """Feed frames of this size until one of them comes back; earlier ones may be on their way."""
        came: list[Frame] = []

        def came_back() -> bool:
            self._number += 1
            pixels = np.full((size[1], size[0], 3), self._number % 256, np.uint8)
            time_ns = self._number * 33_000_000
            self.supervisor.feed(Frame(pixels, pts_ns=time_ns, captured_ns=time_ns, seq=self._number))
            frame = self.supervisor.from_engine.get(0.02)
            if frame is not None and (frame.width, frame.height) == size:
                came.append(frame)
            return bool(came)

        until(came_back, f"no frame of {size} came back: {self.told[-3:]}")
        return came[0]


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Show]:
    made = Show(tmp_path)
    made.supervisor.start()
    until(lambda: made.supervisor.state is EngineState.RUNNING, "no engine runs")
    made.returns(SMALL)
    yield made
    made.supervisor.stop()


def test_the_size_changes_and_nothing_counts_as_a_failure(show: Show) -> None:
    before = show.supervisor.process_id
    show.want(IDENTITY, LARGE)
    until(lambda: show.supervisor.size == LARGE, "the new size")
    show.returns(LARGE)
    assert show.supervisor.process_id != before and not psutil.pid_exists(before)
    show.want(IDENTITY, SMALL)
    until(lambda: show.supervisor.size == SMALL, "and back")
    show.returns(SMALL)
    assert show.supervisor.restarts == 0 and not show.of(messages.ChangeFailed) + show.of(messages.Restarting)
    assert messages.Loading("Loading identity 96x64") in show.told


def test_the_model_changes_and_the_controls_go_along(show: Show) -> None:
    show.want("wan21-tiny", LARGE)
    until(lambda: show.models()[-1] == "wan21-tiny", "the model")
    show.controls = Controls(prompt_1="fire", steps=1, strength=0.8)
    made = show.returns(LARGE)
    assert made.metadata["steps"] == "1" and float(made.metadata["strength"]) in (0.7, 0.8)
    assert any("Loading wan21-tiny 96x64: opening wan21-tiny" in event.text for event in show.of(messages.Loading))
    show.want("ember", SMALL)
    until(lambda: show.models()[-1] == "ember", "another model")
    assert show.returns(SMALL).metadata["strength"] == "0.8"
    show.want(IDENTITY, SMALL)
    until(lambda: show.models()[-1] == IDENTITY, "no model")
    show.returns(SMALL)
    assert show.supervisor.restarts == 0


def test_what_cannot_be_started_is_told_and_what_ran_before_comes_back(show: Show) -> None:
    show.want("wan21-1.3b", LARGE)
    until(lambda: show.of(messages.ChangeFailed), "the failure")
    (failed,) = show.of(messages.ChangeFailed)
    assert failed.failed == EngineChoice("wan21-1.3b", LARGE) and failed.back == EngineChoice(IDENTITY, SMALL)
    assert "wan21-1.3b" in failed.reason
    show.returns(SMALL)
    assert show.supervisor.size == SMALL and not show.of(messages.Restarting)
    show.want(IDENTITY, LARGE)
    show.returns(LARGE)


def test_without_memory_for_the_size_what_ran_before_comes_back(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rings.FrameRing

    def full(width: int, height: int, depth: int) -> rings.FrameRing:
        if (width, height) == LARGE:
            raise SharedMemoryError("There is no memory left.", "Choose a smaller size.")
        return real(width, height, depth)

    monkeypatch.setattr(rings, "FrameRing", full)
    show.want(IDENTITY, LARGE)
    until(lambda: show.of(messages.ChangeFailed), "the failure")
    assert "There is no memory left. Choose a smaller size." in show.of(messages.ChangeFailed)[0].reason
    until(lambda: show.supervisor.state is EngineState.RUNNING, "what ran before")
    show.returns(SMALL)


def test_an_engine_that_dies_before_its_first_picture_counts_as_failed_and_later_is_started_again(show: Show) -> None:
    show.want(IDENTITY, LARGE)
    until(lambda: show.supervisor.size == LARGE, "the new size")  # no frame of it is fed
    psutil.Process(show.supervisor.process_id).kill()
    until(lambda: show.of(messages.ChangeFailed), "the failure")
    show.returns(SMALL)
    show.want(IDENTITY, LARGE)
    show.returns(LARGE)
    until(lambda: show.supervisor._proven.size == LARGE, "the first chunk to be noticed")
    psutil.Process(show.supervisor.process_id).kill()
    until(lambda: show.of(messages.Restarting), "the death of an engine that has worked")
    show.returns(LARGE)
    assert len(show.of(messages.ChangeFailed)) == 1


def test_the_newest_of_many_choices_wins_and_no_process_is_left(show: Show) -> None:
    others = {process.pid for process in psutil.Process().children()} - {show.supervisor.process_id}
    for number in range(40):
        show.want(("ember", "wan21-1.3b", IDENTITY)[number % 3], (64 + 16 * (number % 5), 48))
        time.sleep(0.01 * (number % 4))
    show.want(IDENTITY, LARGE)
    show.returns(LARGE)
    assert show.supervisor.size == LARGE and show.models()[-1] == IDENTITY
    left = {process.pid for process in psutil.Process().children()} - others
    assert left == {show.supervisor.process_id}
    assert not show.of(messages.Restarting)


def test_a_choice_that_is_taken_back_while_it_loads_leaves_the_first_one(show: Show) -> None:
    show.want("ember", LARGE)
    until(lambda: show.of(messages.Loading), "it loads")
    show.want(IDENTITY, SMALL)
    until(lambda: show.supervisor.state is EngineState.RUNNING, "the first one runs again")
    show.returns(SMALL)
    assert show.models()[-1] == IDENTITY and not show.of(messages.ChangeFailed)


def test_a_choice_does_not_wait_until_a_failed_engine_is_tried_again(tmp_path: Path) -> None:
    told: list[messages.EngineEvent] = []
    config = Config(model="wan21-1.3b", width=64, height=48, device="cpu", weights_dir=str(tmp_path))
    process = EngineProcessConfig(backoff_seconds=60.0, backoff_max_seconds=600.0)
    watched = Supervisor(config, process, 0.0, Controls, told.append)
    watched.start()
    try:
        until(lambda: any(isinstance(event, messages.Restarting) for event in told), "the first failure")
        began = time.monotonic()
        watched.want(EngineChoice(IDENTITY, SMALL))
        until(lambda: watched.state is EngineState.RUNNING, "the choice")
        assert time.monotonic() - began < 50.0
    finally:
        watched.stop()
