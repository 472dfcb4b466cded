"""After a bad frame the publish thread reports it, keeps the sink open, and sends again at the next tick."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.control.store import ControlStore
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.publish import Publisher
from bridge.pipeline.stages.table import STAGES
from bridge.process.supervisor import EngineState
from bridge.table import TABLE
from bridge.video.base import Options
from bridge.video.synthetic.null import NullSink
from engine.frame import Frame


class NoFrames:
    """A ring's reading end without frames."""

    def get(self, timeout_s: float) -> Frame | None:
        return None


class Engine:
    """A supervisor whose engine gives nothing, and whose state can break."""

    def __init__(self) -> None:
        self.from_engine = NoFrames()
        self.broken = 0

    @property
    def state(self) -> EngineState:
        if self.broken:
            self.broken -= 1
            raise RuntimeError("no state")
        return EngineState.RUNNING


def publisher(engine: Engine, offer: Callable[[Frame], None], told: list[tuple[str, str]]) -> Publisher:
    return Publisher(
        "null:",
        Options(),
        engine,
        FrameHistory(64 * 48 * 3),
        STAGES,
        ControlStore(TABLE),
        100.0,
        (64, 48),
        1.0,
        offer,
        lambda topic, text: told.append((topic, text)),
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NullSink]]:
    sinks: list[NullSink] = []
    real = NullSink.open

    def open_(self: NullSink) -> None:
        sinks.append(self)
        real(self)

    monkeypatch.setattr(NullSink, "open", open_)
    yield sinks


def sends_on(made: Publisher, frames: int = 20) -> None:
    wanted, deadline = made.sent + frames, time.monotonic() + 20.0
    while made.sent < wanted:
        assert time.monotonic() < deadline, "the output has stopped"
        time.sleep(0.005)


def test_a_defect_after_a_send_does_not_reopen_the_sink(opened: list[NullSink]) -> None:
    told, count = list[tuple[str, str]](), 0

    def offer(frame: Frame) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("a bad frame")

    made = publisher(Engine(), offer, told)
    made.start()
    try:
        sends_on(made)
    finally:
        made.stop()
    assert told == [("publish", "RuntimeError: a bad frame")]
    assert len(set(map(id, opened))) == 1


def test_a_sink_that_raises_is_tried_again_and_reported_once(
    opened: list[NullSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, calls = list[tuple[str, str]](), []
    real = NullSink.send

    def send(self: NullSink, frame: Frame, *rest: Any) -> None:
        calls.append(frame)
        if len(calls) <= 10:
            raise ValueError("no such picture")
        real(self, frame, *rest)

    monkeypatch.setattr(NullSink, "send", send)
    made = publisher(Engine(), lambda frame: None, told)
    made.start()
    try:
        sends_on(made)
    finally:
        made.stop()
    assert told == [("publish", "ValueError: no such picture")]
    assert len(set(map(id, opened))) == 1


def test_a_defect_before_the_tick_neither_stops_the_clock_nor_makes_it_spin(opened: list[NullSink]) -> None:
    told, engine = list[tuple[str, str]](), Engine()
    engine.broken = 10
    made = publisher(engine, lambda frame: None, told)
    began = time.monotonic()
    made.start()
    try:
        sends_on(made, 1)
        assert time.monotonic() - began > 0.08, "ten broken ticks took ten periods, not a loop without a pause"
        sends_on(made)
    finally:
        made.stop()
    assert told == [("publish", "RuntimeError: no state")]
    assert len(set(map(id, opened))) == 1
