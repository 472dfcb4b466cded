"""After a bad frame the publish thread reports it, keeps the sink open, and sends again at the next tick."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from bridge.control.store import ControlStore
from bridge.pipeline.endpoints.output import MAX_LEFT, Output
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.pacing.pacer import Pick
from bridge.pipeline.publish import Publisher
from bridge.pipeline.stages.table import STAGES
from bridge.process.supervisor import EngineState
from bridge.table import TABLE
from bridge.video.base import Options
from bridge.video.synthetic.null import NullSink
from engine.errors import TransportError
from engine.frame import Frame
from tests.support import bad_transport


class NoFrames:
    """A ring's reading end without frames."""

    def get(self, timeout_s: float) -> Frame | None:
        return None


class NoMasks:
    """The rings of the person mask, without masks."""

    def put(self, frame: Frame) -> None:
        return None

    def take(self) -> list[tuple[Frame, np.ndarray]]:
        return []


class Engine:
    """A supervisor whose engine gives nothing, and whose state can break."""

    def __init__(self) -> None:
        self.from_engine = NoFrames()
        self.masks = NoMasks()
        self.chunks = 0
        self.broken = 0

    @property
    def state(self) -> EngineState:
        if self.broken:
            self.broken -= 1
            raise RuntimeError("no state")
        return EngineState.RUNNING


def publisher(
    engine: Engine,
    offer: Callable[[Frame], None],
    told: list[tuple[str, str]],
    uri: str = "null:",
    store: ControlStore | None = None,
) -> Publisher:
    def tell(topic: str, text: str) -> None:
        told.append((topic, text))

    return Publisher(
        [Output(address, Options(), tell) for address in uri.split(" + ")],
        engine,
        FrameHistory(),
        STAGES,
        store or ControlStore(TABLE),
        100.0,
        (64, 48),
        1.0,
        offer,
        tell,
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
    wanted, deadline = made.main.sent + frames, time.monotonic() + 60.0
    while made.main.sent < wanted:
        assert time.monotonic() < deadline, "the output has stopped"
        time.sleep(0.005)


def shown(made: Publisher, store: ControlStore, level: int) -> tuple[int, int]:
    """Let a picture of this grey level come from the input; returns the level that is sent, and its time of capture."""
    frame = Frame(np.full((48, 64, 3), level, np.uint8), captured_ns=level)
    sent = made._picture(store.snapshot, Pick(frame, True, "dry"))
    return int(sent.pixels[0, 0, 0]), sent.captured_ns


def test_freeze_after_black_holds_the_picture_of_that_moment_and_black_goes_before_both() -> None:
    store = ControlStore(TABLE)
    made = publisher(Engine(), lambda frame: None, [], store=store)
    assert shown(made, store, 10) == (10, 10)
    store.set("black", True)
    assert shown(made, store, 20) == (0, 0)
    assert shown(made, store, 30) == (0, 0)
    store.set("freeze", True)  # 30 would be on air now
    assert shown(made, store, 40) == (0, 0)
    store.set("black", False)
    assert shown(made, store, 50) == (30, 30), "the picture of the moment of freeze, not the last one before black"
    store.set("freeze", False)
    assert shown(made, store, 60) == (60, 60)


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
    assert told == [("output", "null: cannot send: no such picture.")]
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


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("error", [RuntimeError, OSError, MemoryError, TransportError])
def test_an_output_that_fails_for_long_is_opened_again_and_the_others_go_on(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.pipeline.endpoints.sink_writer.REOPEN_S", 0.1)
    monkeypatch.setattr("bridge.pipeline.endpoints.retry.FIRST_S", 0.1)
    told, offered = list[tuple[str, str]](), list[Frame]()
    with bad_transport.registered():
        bad_transport.ERROR[0] = error
        made = publisher(Engine(), offered.append, told, "bad:send")
        made.start()
        try:
            until(lambda: len(bad_transport.OPENED) >= 3)
            assert [topic for topic, _ in told] == ["output"] and "a defect in send" in told[0][1]
            assert made.main.sent == 0 and not bad_transport.SENT
            before = len(offered)
            until(lambda: len(offered) >= before + 10)  # the page and the recording
            monkeypatch.setattr(bad_transport.BadSink, "at", lambda self, place: None)
            sends_on(made)
        finally:
            made.stop()


def test_an_output_that_cannot_be_opened_again_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sink_writer.REOPEN_S", "retry.FIRST_S", "retry.LONGEST_S"):
        monkeypatch.setattr(f"bridge.pipeline.endpoints.{name}", 0.1)
    told, failing = list[tuple[str, str]](), [False]

    def at(self: bad_transport.BadSink, place: str) -> None:
        if failing[0] and place in ("open", "send"):
            raise RuntimeError(f"no {place}")

    monkeypatch.setattr(bad_transport.BadSink, "at", at)
    with bad_transport.registered():
        made = publisher(Engine(), lambda frame: None, told, "bad:")
        made.start()
        try:
            sends_on(made)
            failing[0] = True
            until(lambda: len(told) == 2)
            assert told == [("output", "bad: cannot send: no send."), ("output", "bad: cannot be opened: no open.")]
            time.sleep(0.5)
            assert len(told) == 2
            failing[0] = False
            sends_on(made)
        finally:
            made.stop()


@pytest.mark.parametrize("error", [RuntimeError, TransportError])
def test_a_start_whose_output_raises_is_an_error(error: type[Exception]) -> None:
    with bad_transport.registered():
        bad_transport.ERROR[0] = error
        with pytest.raises(TransportError, match="a defect in open"):
            publisher(Engine(), lambda frame: None, [], "bad:open").start()


def test_neither_start_nor_end_waits_for_an_output_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.pipeline.endpoints.output.START_S", 0.3)
    with bad_transport.registered():
        with pytest.raises(TransportError, match="bad:open hangs has not opened"):
            publisher(Engine(), lambda frame: None, [], "bad:open hangs").start()
        made = publisher(Engine(), lambda frame: None, [], "bad:send hangs")
        made.start()
        until(lambda: made.main.skipped)  # it has taken one, and hangs
        assert not made.stop(0.3)


def test_an_output_that_hangs_is_said_left_behind_and_opened_again_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.pipeline.endpoints.endpoint_thread.HANG_S", 0.3)
    monkeypatch.setattr("bridge.pipeline.endpoints.output.HANG_S", 0.3)
    for name in ("retry.FIRST_S", "retry.LONGEST_S"):
        monkeypatch.setattr(f"bridge.pipeline.endpoints.{name}", 0.1)
    told = list[tuple[str, str]]()
    with bad_transport.registered():
        made = publisher(Engine(), lambda frame: None, told, "null: + bad:send hangs")
        made.start()
        try:
            until(lambda: told)
            assert told == [("output", "bad:send hangs takes no pictures: it has not answered for 0.3 s.")]
            assert made.outputs[1].trouble
            sends_on(made, 100)
            until(lambda: len(bad_transport.OPENED) >= 2)
            assert len(told) == 1
            bad_transport.RELEASE.set()
            until(lambda: bad_transport.SENT and not made.outputs[1].trouble)
            assert made.outputs[1].sent, "what the one that was left behind sent does not count, this one's does"
        finally:
            made.stop()


def test_an_output_that_hangs_again_and_again_fills_the_machine_with_no_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.pipeline.endpoints.endpoint_thread.HANG_S", 0.05)
    for name in ("retry.FIRST_S", "retry.LONGEST_S"):
        monkeypatch.setattr(f"bridge.pipeline.endpoints.{name}", 0.01)
    with bad_transport.registered():
        made = publisher(Engine(), lambda frame: None, [], "null: + bad:send hangs")
        made.start()
        try:
            until(lambda: len(bad_transport.OPENED) == MAX_LEFT)
            sends_on(made, 100)
            assert len(bad_transport.OPENED) == MAX_LEFT
            bad_transport.RELEASE.set()
            until(lambda: bad_transport.SENT and made.outputs[1].sent)
        finally:
            made.stop()


def test_a_further_output_that_cannot_be_opened_is_said_and_opened_when_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("retry.FIRST_S", "retry.LONGEST_S"):
        monkeypatch.setattr(f"bridge.pipeline.endpoints.{name}", 0.1)
    told, failing = list[tuple[str, str]](), [True]

    def at(self: bad_transport.BadSink, place: str) -> None:
        if failing[0] and place == "open":
            raise TransportError("There is no display 2.")

    monkeypatch.setattr(bad_transport.BadSink, "at", at)
    with bad_transport.registered():
        made = publisher(Engine(), lambda frame: None, told, "null: + bad:")
        made.start()
        try:
            until(lambda: told)
            sends_on(made, 50)
            assert told == [("output", "There is no display 2.")]
            failing[0] = False
            until(lambda: bad_transport.SENT)
            until(lambda: not made.outputs[1].trouble)
        finally:
            made.stop()


def test_a_slow_output_gets_the_newest_picture_and_the_others_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_transport.BadSink, "at", lambda self, place: place == "send" and time.sleep(0.1))
    with bad_transport.registered():
        made = publisher(Engine(), lambda frame: None, [], "null: + bad:")
        made.start()
        try:
            until(lambda: made.outputs[1].sent >= 5)
        finally:
            made.stop()
    slow = made.outputs[1]
    assert slow.skipped >= 3 * slow.sent, "ten pictures come while it takes one"
    assert made.main.sent + made.main.skipped >= slow.sent + slow.skipped - 1


def test_an_output_whose_close_raises_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with bad_transport.registered():
        made = publisher(Engine(), lambda frame: None, [], "bad:close")
        made.start()
        sends_on(made)
        assert made.stop(5.0)
